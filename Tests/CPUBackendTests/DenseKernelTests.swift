import CSIMD
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#endif

@Suite struct DenseKernelTests {
  /// Weights as stored and as the float32 values they stand for.
  static func weights(_ type: nb_weight_type, count: Int, seed: UInt64) -> (stored: [UInt8], values: [Float]) {
    var random = SplitMix(seed: seed)
    var stored: [UInt8] = []
    var values: [Float] = []
    for _ in 0..<count {
      let value = random.uniform()
      switch type {
      case NB_WEIGHT_BF16:
        let bits = UInt16(value.bitPattern >> 16)
        withUnsafeBytes(of: bits) { stored += $0 }
        values.append(Float(bitPattern: UInt32(bits) << 16))
      case NB_WEIGHT_F16:
        let half = Float16(value)
        withUnsafeBytes(of: half) { stored += $0 }
        values.append(Float(half))
      default:
        withUnsafeBytes(of: value) { stored += $0 }
        values.append(value)
      }
    }
    return (stored, values)
  }

  static let types = [NB_WEIGHT_F32, NB_WEIGHT_BF16, NB_WEIGHT_F16]

  @Test(arguments: [1, 15, 16, 17, 64, 100, 384])
  func linearEqualsDoublePrecision(width: Int) {
    for level in supportedLevels {
      for type in Self.types {
        let (outputs, rows) = (13, 7)
        let (stored, values) = Self.weights(type, count: outputs * width, seed: UInt64(width))
        var random = SplitMix(seed: 7)
        let x = random.uniform(rows * width)
        let bias = random.uniform(outputs)
        var y = [Float](repeating: .nan, count: rows * outputs)
        nb_linear(
          level, type, stored, Int64(width), 0, Int64(outputs), nil, bias, x, Int64(width), Int64(rows), &y,
          Int64(outputs),
          0)
        var worst = 0.0
        for row in 0..<rows {
          for output in 0..<outputs {
            var sum = Double(bias[output])
            for k in 0..<width { sum += Double(values[output * width + k]) * Double(x[row * width + k]) }
            worst = max(worst, abs(sum - Double(y[row * outputs + output])))
          }
        }
        // Sums of `width` products below 1 in float32.
        #expect(worst < 1e-7 * Double(width + 16), "\(type) \(String(cString: nb_level_name(level)))")
      }
    }
  }

  /// A row's bits don't depend on the rows beside it, however many a tile takes, nor on the cut of the outputs.
  @Test(arguments: [13] + Array(1...6)) func linearRowsAreIndependent(rows: Int) {
    let (width, outputs) = (200, 37)
    for level in supportedLevels {
      for type in Self.types {
        let (stored, _) = Self.weights(type, count: outputs * width, seed: 3)
        var random = SplitMix(seed: 5)
        let x = random.uniform(rows * width)
        var together = [Float](repeating: .nan, count: rows * outputs)
        nb_linear(
          level, type, stored, Int64(width), 0, Int64(outputs), nil, nil, x, Int64(width), Int64(rows), &together,
          Int64(outputs), 0)
        for row in 0..<rows {
          var alone = [Float](repeating: .nan, count: outputs)
          for cut in [0..<5, 5..<outputs] {
            x.withUnsafeBufferPointer { x in
              nb_linear(
                level, type, stored, Int64(width), Int64(cut.lowerBound), Int64(cut.upperBound), nil, nil,
                x.baseAddress! + row * width, Int64(width), 1, &alone, Int64(outputs), 0)
            }
          }
          #expect(alone.map(\.bitPattern) == together[row * outputs..<(row + 1) * outputs].map(\.bitPattern))
        }
      }
    }
  }

  @Test func linearAccumulates() {
    for level in supportedLevels {
      let weights: [Float] = [1, 2, 3, 4]
      var y: [Float] = [10, 20]
      nb_linear(level, NB_WEIGHT_F32, weights, 2, 0, 2, nil, nil, [1, 1], 2, 1, &y, 2, 1)
      #expect(y == [13, 27])
    }
  }

  @Test(arguments: [1, 16, 64, 65, 384])
  func rmsNorm(width: Int) {
    var random = SplitMix(seed: 11)
    let x = random.uniform(width)
    let weight = random.uniform(width)
    let square = x.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(width)
    for level in supportedLevels {
      var out = [Float](repeating: .nan, count: width)
      nb_rms_norm(level, x, weight, Int64(width), 1e-6, &out)
      for index in 0..<width {
        let expected = Double(x[index]) / (square + 1e-6).squareRoot() * Double(weight[index])
        #expect(abs(Double(out[index]) - expected) <= 1e-6 * max(1, abs(expected)))
      }
    }
  }

  @Test func siluOverItsRange() {
    let gate = (0..<415).map { Float($0 - 200) * 0.5 }
    let up = [Float](repeating: 2, count: gate.count)
    for level in supportedLevels {
      var out = [Float](repeating: .nan, count: gate.count)
      nb_silu_multiply(level, gate, up, Int64(gate.count), &out)
      for (index, x) in gate.enumerated() {
        let expected = 2 * Double(x) / (1 + exp(-Double(x)))
        // Below -87 the exponential is held at its smallest normal value.
        #expect(abs(Double(out[index]) - expected) <= 1e-6 * abs(expected) + 1e-35, "x = \(x)")
      }
    }
  }

  @Test func rotateByQuarterTurn() {
    for level in supportedLevels {
      var halves: [Float] = [1, 2, 3, 4]
      nb_rotate(level, &halves, [0, 0], [1, 1], 2, 0)
      #expect(halves == [-3, -4, 1, 2])
      var neighbours: [Float] = [1, 2, 3, 4]
      nb_rotate(level, &neighbours, [0, 0], [1, 1], 2, 1)
      #expect(neighbours == [-2, 1, -4, 3])
    }
  }

  /// As many pairs as vectors hold, fewer and more, against double precision.
  @Test(arguments: [1, 7, 16, 32, 37]) func rotate(pairs: Int) {
    var random = SplitMix(seed: 13)
    let x = random.uniform(2 * pairs)
    let angles = random.uniform(pairs).map { Double($0) * 3 }
    let (cosines, sines) = (angles.map { Float(cos($0)) }, angles.map { Float(sin($0)) })
    for level in supportedLevels {
      for interleaved in [false, true] {
        var turned = x
        nb_rotate(level, &turned, cosines, sines, Int64(pairs), interleaved ? 1 : 0)
        for pair in 0..<pairs {
          let (first, second) = interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + pairs)
          let (a, b) = (Double(x[first]), Double(x[second]))
          let (cosine, sine) = (Double(cosines[pair]), Double(sines[pair]))
          // Two products below 1 and their sum in float32.
          #expect(abs(Double(turned[first]) - (a * cosine - b * sine)) < 2e-7)
          #expect(abs(Double(turned[second]) - (b * cosine + a * sine)) < 2e-7)
        }
      }
    }
  }

  /// Converted weights: the product is that of the decoded weights, a row alone equals a row among others, and the weights are as
  /// near to the originals as their format allows.
  @Test(arguments: [16, 100, 128, 200, 384])
  func convertedWeights(width: Int) {
    let (outputs, rows) = (13, 7)
    var random = SplitMix(seed: 17)
    let weights = random.uniform(outputs * width)
    let x = random.uniform(rows * width)
    let bias = random.uniform(outputs)
    for level in supportedLevels {
      for (type, tolerance) in [(NB_WEIGHT_FP8_E4M3, 0.04), (NB_WEIGHT_NVFP4, 0.13)] {
        let rowBytes = Int(nb_weight_row_bytes(type, Int64(width)))
        var stored = [UInt8](repeating: 0xA5, count: outputs * rowBytes)
        var factors = [Float](repeating: 0, count: outputs)
        var decoded = [Float](repeating: .nan, count: outputs * width)
        for output in 0..<outputs {
          weights.withUnsafeBufferPointer { weights in
            stored.withUnsafeMutableBytes { stored in
              factors[output] = nb_weight_encode_row(
                level, type, weights.baseAddress! + output * width, Int64(width),
                stored.baseAddress! + output * rowBytes)
            }
          }
          decoded.withUnsafeMutableBufferPointer {
            nb_weight_row(level, type, stored, Int64(width), Int64(output), $0.baseAddress! + output * width)
          }
        }
        var (error, norm) = (0.0, 0.0)
        for index in weights.indices {
          decoded[index] *= factors[index / width]
          error += Double((decoded[index] - weights[index]) * (decoded[index] - weights[index]))
          norm += Double(weights[index] * weights[index])
        }
        #expect((error / norm).squareRoot() < tolerance, "\(type)")

        var together = [Float](repeating: .nan, count: rows * outputs)
        nb_linear(
          level, type, stored, Int64(width), 0, Int64(outputs), factors, bias, x, Int64(width), Int64(rows), &together,
          Int64(outputs), 0)
        for row in 0..<rows {
          var alone = [Float](repeating: .nan, count: outputs)
          x.withUnsafeBufferPointer {
            nb_linear(
              level, type, stored, Int64(width), 0, Int64(outputs), factors, bias, $0.baseAddress! + row * width,
              Int64(width), 1, &alone, Int64(outputs), 0)
          }
          #expect(alone.map(\.bitPattern) == together[row * outputs..<(row + 1) * outputs].map(\.bitPattern))
          for output in 0..<outputs {
            var sum = Double(bias[output])
            for k in 0..<width { sum += Double(decoded[output * width + k]) * Double(x[row * width + k]) }
            #expect(abs(sum - Double(alone[output])) < 2e-7 * Double(width + 16))
          }
        }
      }
    }
  }
}
