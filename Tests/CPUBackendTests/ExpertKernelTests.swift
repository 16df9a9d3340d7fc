import CSIMD
import TestSupport
import Testing

/// Kernels of experts and latent attention at every instruction-set level of this machine.
@Suite struct ExpertKernelTests {
  @Test(arguments: supportedLevels, [1, 15, 16, 64, 83, 128])
  func multiplyRows(level: nb_level, width: Int) {
    let (first, end, rows) = (3, 20, 3)
    var generator = SplitMix(seed: 1)
    let weights = generator.uniform(end * width)
    let x = generator.uniform(rows * (end - first))
    var whole = [Float](repeating: 7, count: rows * width)
    nb_multiply_rows(
      level, NB_WEIGHT_F32, weights, Int64(width), Int64(first), Int64(end), x, Int64(end - first), Int64(rows), &whole,
      Int64(width), 0)
    for row in 0..<rows {
      for column in 0..<width {
        let want = (first..<end).reduce(0.0) {
          $0 + Double(x[row * (end - first) + $1 - first]) * Double(weights[$1 * width + column])
        }
        #expect(abs(Double(whole[row * width + column]) - want) < 1e-5)
      }
    }

    // In two parts, and row by row: the same bits.
    var parts = [Float](repeating: 0, count: rows * width)
    for row in 0..<rows {
      parts.withUnsafeMutableBufferPointer { parts in
        x.withUnsafeBufferPointer { x in
          guard let x = x.baseAddress, let out = parts.baseAddress else { return }
          for (range, accumulate) in [(first..<9, Int32(0)), (9..<end, 1)] {
            nb_multiply_rows(
              level, NB_WEIGHT_F32, weights, Int64(width), Int64(range.lowerBound), Int64(range.upperBound),
              x + row * (end - first) + range.lowerBound - first, Int64(end - first), 1, out + row * width,
              Int64(width), accumulate)
          }
        }
      }
    }
    #expect(parts.map(\.bitPattern) == whole.map(\.bitPattern))
  }

  /// All codes, with another factor in each block of 128 x 128.
  @Test(arguments: supportedLevels)
  func e4m3Rows(level: nb_level) {
    let (rows, width) = (130, 200)
    let codes = (0..<rows * width).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 / 256) }
    let factors: [Float] = [1, 0.37, 1e-3, 5]
    var decoded = [Float](repeating: 0, count: rows * width)
    codes.withUnsafeBufferPointer { codes in
      factors.withUnsafeBufferPointer { factors in
        var weights = nb_e4m3_weights(codes: codes.baseAddress, factors: factors.baseAddress, width: Int64(width))
        nb_e4m3_rows(level, &weights, 0, Int64(rows), &decoded)
      }
    }
    for row in 0..<rows {
      for column in 0..<width {
        let code = codes[row * width + column]
        guard code & 0x7f != 0x7f else { continue }
        let (exponent, mantissa) = (Int(code >> 3 & 15), Float(code & 7))
        let magnitude =
          exponent == 0
          ? mantissa * 0x1p-9 : (8 + mantissa) * Float(sign: .plus, exponent: exponent - 10, significand: 1)
        let want = (code >= 128 ? -magnitude : magnitude) * factors[row / 128 * 2 + column / 128]
        #expect(decoded[row * width + column] == want)
      }
    }
  }

  @Test(arguments: supportedLevels, [1, 16, 37])
  func addScaled(level: nb_level, count: Int) {
    var generator = SplitMix(seed: 2)
    let x = generator.uniform(count)
    var sum = generator.uniform(count)
    let before = sum
    nb_add_scaled(level, x, 0.75, Int64(count), &sum)
    for index in 0..<count { #expect(abs(sum[index] - (before[index] + x[index] * 0.75)) < 1e-6) }
  }
}
