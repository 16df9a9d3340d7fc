import BlockFormats
import TestSupport

/// Rows that stress one thing each.
enum RowKind: CaseIterable {
  case normal, outliers, ties, zeros, signedZeros, subnormal, huge, nonfinite, allNonfinite, anyBits, sparse, clipped

  func row(dimension: Int, decodeScale g: Float, using generator: inout SplitMix) -> [Float] {
    let bounded = min(max(g, 1e-30), 1e30)
    return (0..<dimension).map { index in
      switch self {
      case .normal: generator.normal() * bounded * 3
      case .outliers: generator.normal() * bounded * (index % 16 == 5 ? 60 : 1)
      case .ties:
        // Multiples of a quarter under a maximum of 6 per block, so that quotients hit midpoints exactly.
        index % 16 == 0 ? 6 * bounded : Float(Int.random(in: -24...24, using: &generator)) / 4 * bounded
      case .zeros: 0
      case .signedZeros: [0, -0.0, 1, -1e-20][Int.random(in: 0..<4, using: &generator)]
      case .subnormal:
        Float(bitPattern: UInt32.random(in: 0...0x00FF_FFFF, using: &generator)) * (index % 3 == 0 ? -1 : 1)
      case .huge:
        Float(bitPattern: UInt32.random(in: 0x7E00_0000...0x7F7F_FFFF, using: &generator)) * (index % 2 == 0 ? -1 : 1)
      case .nonfinite: index % 7 == 3 ? [.nan, -.nan, .infinity, -.infinity][index % 4] : generator.normal()
      case .allNonfinite: [.nan, .infinity, -.infinity, .signalingNaN][index % 4]
      case .anyBits: Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &generator))
      case .sparse: Int.random(in: 0..<8, using: &generator) == 0 ? generator.normal() : 0
      case .clipped: generator.normal() * bounded * 2000
      }
    }
  }
}
