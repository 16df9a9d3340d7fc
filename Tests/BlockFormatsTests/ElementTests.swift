import BlockFormats
import TestSupport
import Testing

@Suite struct E2M1Tests {
  @Test func all16CodesRoundTrip() {
    for bits in UInt8(0)..<16 {
      let element = E2M1(bits: bits)
      #expect(E2M1(element.value).bits == bits)
      #expect(E2M1(element.value, ties: .awayFromZero).bits == (bits == 8 ? 0 : bits))
    }
    #expect(
      (UInt8(0)..<16).map { E2M1(bits: $0).value } == [
        0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6,
      ])
    #expect(E2M1(bits: 8).value.sign == .minus)
  }

  @Test func tiesGoToTheEvenCodeOrAway() {
    for (lower, midpoint) in E2M1.midpoints.enumerated() {
      let lower = UInt8(lower)
      #expect(E2M1(midpoint).bits == lower + lower % 2)
      #expect(E2M1(-midpoint).bits == lower + lower % 2 + 8)
      #expect(E2M1(midpoint, ties: .awayFromZero).bits == lower + 1)
      #expect(E2M1(-midpoint, ties: .awayFromZero).bits == lower + 9)
      for ties in [E2M1.TieRule.toEven, .awayFromZero] {
        #expect(E2M1(midpoint.nextDown, ties: ties).bits == lower)
        #expect(E2M1(midpoint.nextUp, ties: ties).bits == lower + 1)
      }
    }
  }

  /// Nearest by distance, in double precision, for random values.
  @Test func roundsToTheNearestMagnitude() {
    var generator = SplitMix(seed: 1)
    for _ in 0..<20_000 {
      let value = Float.random(in: -8...8, using: &generator)
      let nearest = E2M1.magnitudes.map { abs(Double($0) - Double(abs(value))) }.min()
      #expect(abs(Double(E2M1(value).value) - Double(value)) == nearest, "\(value)")
    }
  }

  @Test func outOfRange() {
    #expect(E2M1(.infinity).bits == 7)
    #expect(E2M1(-.infinity).bits == 15)
    #expect(E2M1(1e30).bits == 7)
    #expect(E2M1(.nan).bits == 0)
    #expect(E2M1(-0.0).bits == 8)
    #expect(E2M1(-.leastNonzeroMagnitude).bits == 8)
  }

  @Test func packingPutsEvenElementsLow() {
    #expect(E2M1.pack([7, 0, 2, 15]) == [0x07, 0xF2])
    #expect(E2M1.unpack([0x07, 0xF2]) == [7, 0, 2, 15])
  }
}

@Suite struct E4M3Tests {
  @Test func all256CodesRoundTrip() {
    for bits in UInt8.min...UInt8.max {
      let element = E4M3(bits: bits)
      if bits & 0x7F == 0x7F {
        #expect(element.isNaN && element.value.isNaN)
      } else {
        #expect(E4M3(element.value).bits == bits)
      }
    }
  }

  @Test func landmarks() {
    #expect(E4M3(bits: 0x01).value == 0x1p-9)
    #expect(E4M3(bits: 0x08).value == 0x1p-6)
    #expect(E4M3(bits: 0x38).value == 1)
    #expect(E4M3(bits: 0x7E).value == 448)
    #expect(E4M3(bits: 0xFE).value == -448)
    #expect(E4M3(bits: 0x80).value.sign == .minus)
    #expect((UInt8(0)...255).filter { E4M3(bits: $0).isSubnormal } == Array(1...7) + Array(129...135))
  }

  /// Between any two neighbours: the midpoint goes to the even code, anything nearer to one goes there.
  @Test func roundsToNearestEven() {
    for lower in UInt8(0)..<0x7E {
      let (a, b) = (E4M3(bits: lower).value, E4M3(bits: lower + 1).value)
      let midpoint = (a + b) / 2
      #expect(E4M3(midpoint).bits == lower + lower % 2)
      #expect(E4M3(midpoint.nextDown).bits == lower)
      #expect(E4M3(midpoint.nextUp).bits == lower + 1)
      #expect(E4M3(-midpoint.nextUp).bits == lower + 1 + 0x80)
    }
  }

  @Test func saturates() {
    for value: Float in [448, 449, 464, 465, 1e30, .greatestFiniteMagnitude, .infinity] {
      #expect(E4M3(value).bits == 0x7E)
      #expect(E4M3(-value).bits == 0xFE)
    }
    #expect(E4M3(.nan).isNaN)
    #expect(E4M3(0x1p-10).bits == 0)
    #expect(E4M3(Float(0x1p-10).nextUp).bits == 1)
    #expect(E4M3(.leastNonzeroMagnitude).bits == 0)
  }
}

@Suite struct E8M0Tests {
  @Test func all256Codes() {
    for bits in UInt8.min...254 {
      let scale = E8M0(bits: bits)
      let exponent = Int(bits) - 127
      #expect(scale.exponent == exponent)
      #expect(E8M0(exponent: exponent).bits == bits)
      // Doubles reach 2^-127 without subnormals.
      #expect(Double(scale.value) == Double(sign: .plus, exponent: exponent, significand: 1))
    }
    #expect(E8M0(bits: 255).isNaN && E8M0(bits: 255).value.isNaN && E8M0(bits: 255).exponent == nil)
    #expect(E8M0(exponent: -500).bits == 0)
    #expect(E8M0(exponent: 500).bits == 254)
  }
}

@Suite struct BFloat16Tests {
  @Test func all65536PatternsRoundTrip() {
    var wrong = 0
    for bits in UInt16.min...UInt16.max {
      let element = BFloat16(bits: bits)
      let back = BFloat16(element.value)
      if element.value.isNaN {
        if !back.value.isNaN { wrong += 1 }
      } else if back.bits != bits {
        wrong += 1
      }
    }
    #expect(wrong == 0)
  }

  /// The midpoint between any two finite neighbours goes to the even one, its neighbours to the nearer one.
  @Test func roundsToNearestEven() {
    var wrong = 0
    for lower in UInt16(0)..<0x7F7F {
      let midpoint = Float(bitPattern: UInt32(lower) << 16 | 0x8000)
      if BFloat16(midpoint).bits != lower + lower % 2 { wrong += 1 }
      if BFloat16(midpoint.nextDown).bits != lower { wrong += 1 }
      if BFloat16(-midpoint.nextUp).bits != (lower + 1) | 0x8000 { wrong += 1 }
    }
    #expect(wrong == 0)
    #expect(BFloat16(.greatestFiniteMagnitude).value == .infinity)
    #expect(BFloat16(-.infinity).value == -.infinity)
  }
}
