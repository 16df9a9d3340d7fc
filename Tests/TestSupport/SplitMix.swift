/// A small generator with a seed, so that failures repeat (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014), and the distributions that tests of numbers want.
public struct SplitMix: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Nearly N(0, 1): twelve uniform numbers (Irwin-Hall). Exactly variance 1; tails end at 6.
  public mutating func normal() -> Float {
    Float((0..<12).reduce(0.0) { sum, _ in sum + Double(next() >> 11) * 0x1p-53 } - 6)
  }

  /// Roughly N(0, 1), twelve times as fast: the sum of four uniform 16-bit numbers; tails end at 3.5.
  public mutating func roughNormal() -> Float {
    let bits = next()
    var sum: Float = 0
    for shift in stride(from: UInt64(0), to: 64, by: 16) { sum += Float((bits >> shift) & 0xFFFF) }
    return (sum / 65536 - 2) * 1.7320508
  }

  /// Uniform in -1 ..< 1.
  public mutating func uniform() -> Float { Float(next() >> 40) / Float(1 << 23) - 1 }

  public mutating func uniform(_ count: Int) -> [Float] { (0..<count).map { _ in uniform() } }
}
