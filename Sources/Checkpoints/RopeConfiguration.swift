#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rotary position embeddings: the base, and how frequencies are changed for longer contexts.
public struct RopeConfiguration: Hashable, Sendable {
  public var theta: Double
  public var scaling: RopeScaling
  /// Dimensions that rotate together: neighbours (2i, 2i + 1) as in DeepSeek, or halves (i, i + D/2) as in Llama and Qwen.
  public var isInterleaved: Bool

  public init(theta: Double, scaling: RopeScaling = .none, isInterleaved: Bool = false) {
    self.theta = theta
    self.scaling = scaling
    self.isInterleaved = isInterleaved
  }

  /// What cosines and sines are multiplied by; 1 except for yarn.
  public var attentionFactor: Double {
    if case .yarn(let yarn) = scaling { yarn.attentionFactor } else { 1 }
  }

  /// What MLA multiplies its softmax scale by: the square of yarn's mscale over all dimensions, else 1.
  public var softmaxScaleFactor: Double {
    guard case .yarn(let yarn) = scaling, let allDimensions = yarn.mscaleAllDimensions, allDimensions != 0 else {
      return 1
    }
    let mscale = YarnScaling.mscale(factor: yarn.factor, weight: allDimensions)
    return mscale * mscale
  }

  /// The frequencies 1 / theta^(2i / D) of the D/2 pairs of a head of D rotary dimensions, scaled; radians a position.
  /// Every step rounds to Float, as the models' training code does.
  public func inverseFrequencies(dimension: Int) -> [Float] {
    let base = stride(from: 0, to: dimension, by: 2).map { index in
      Float(pow(theta, Double(Float(index) / Float(dimension))))
    }
    switch scaling {
    case .none: return base.map { 1 / $0 }
    case .linear(let factor): return base.map { 1 / $0 / Float(factor) }
    case .llama3(let llama3): return base.map { llama3.scaled(1 / $0) }
    case .yarn(let yarn): return yarn.scaled(base, dimension: dimension, theta: theta)
    }
  }
}

/// How frequencies are changed for contexts longer than those of pre-training.
public enum RopeScaling: Hashable, Sendable {
  case none
  /// Positions divided by a factor.
  case linear(factor: Double)
  case llama3(Llama3Scaling)
  case yarn(YarnScaling)

  public var name: String {
    switch self {
    case .none: "default"
    case .linear: "linear"
    case .llama3: "llama3"
    case .yarn: "yarn"
    }
  }
}

/// Llama 3.1: long wavelengths are divided by a factor, short ones kept, those between blended.
public struct Llama3Scaling: Hashable, Sendable {
  public var factor: Double
  public var lowFrequencyFactor: Double
  public var highFrequencyFactor: Double
  public var originalMaxPositionEmbeddings: Int

  func scaled(_ frequency: Float) -> Float {
    let context = Double(originalMaxPositionEmbeddings)
    let wavelength = 2 * Float.pi / frequency
    if wavelength < Float(context / highFrequencyFactor) { return frequency }
    if wavelength > Float(context / lowFrequencyFactor) { return frequency / Float(factor) }
    let smooth =
      (Float(context) / wavelength - Float(lowFrequencyFactor)) / Float(highFrequencyFactor - lowFrequencyFactor)
    return (1 - smooth) * frequency / Float(factor) + smooth * frequency
  }
}

/// YaRN (arXiv 2309.00071) with DeepSeek's mscale.
public struct YarnScaling: Hashable, Sendable {
  public var factor: Double
  public var originalMaxPositionEmbeddings: Int
  public var betaFast: Double
  public var betaSlow: Double
  public var mscale: Double?
  public var mscaleAllDimensions: Double?
  /// What the file says; nil derives it.
  public var explicitAttentionFactor: Double?
  /// Rounds the borders of the ramp to whole dimensions.
  public var truncates: Bool

  /// 1 + weight * ln(factor) / 10, at least for a factor above one.
  static func mscale(factor: Double, weight: Double) -> Double {
    factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1
  }

  /// What cosines and sines are multiplied by.
  public var attentionFactor: Double {
    if let explicitAttentionFactor { return explicitAttentionFactor }
    if let mscale, let mscaleAllDimensions, mscale != 0, mscaleAllDimensions != 0 {
      return Self.mscale(factor: factor, weight: mscale) / Self.mscale(factor: factor, weight: mscaleAllDimensions)
    }
    return Self.mscale(factor: factor, weight: 1)
  }

  /// - Parameter base: theta^(2i / D).
  func scaled(_ base: [Float], dimension: Int, theta: Double) -> [Float] {
    func border(_ rotations: Double) -> Double {
      Double(dimension) * log(Double(originalMaxPositionEmbeddings) / (rotations * 2 * .pi)) / (2 * log(theta))
    }
    var low = border(betaFast)
    var high = border(betaSlow)
    if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
    low = max(low, 0)
    high = min(high, Double(dimension - 1))
    if low == high { high += 0.001 }
    return base.enumerated().map { index, value in
      let ramp = min(max((Float(index) - Float(low)) / Float(high - low), 0), 1)
      let keep = 1 - ramp
      return 1 / (Float(factor) * value) * (1 - keep) + 1 / value * keep
    }
  }
}

extension RopeConfiguration {
  /// Reads `rope_theta` with `rope_scaling` (its kind under `rope_type` or the older `type`), or `rope_parameters`, which
  /// holds both since transformers 5.
  init(_ reader: ConfigurationReader, maxPositionEmbeddings: Int, isInterleaved: Bool) throws(CheckpointError) {
    // A null or empty rope_scaling gives way to rope_parameters.
    let legacy = try reader.section("rope_scaling").flatMap { $0.object.isEmpty ? nil : $0 }
    let newer = try reader.section("rope_parameters")
    let section = legacy ?? newer
    let thetaRange = 1.0001...1e15
    let outer = try reader.number("rope_theta", thetaRange, default: 10_000)
    theta = try section?.optionalNumber("rope_theta", thetaRange) ?? outer
    self.isInterleaved = isInterleaved
    let partial = try section?.optionalNumber("partial_rotary_factor", 0...1)
    let outerPartial = try reader.optionalNumber("partial_rotary_factor", 0...1)
    if (partial ?? outerPartial ?? 1) != 1 {
      throw .unsupportedFeature("rotary embeddings on a part of each head (partial_rotary_factor)", path: reader.path)
    }
    guard let section else {
      scaling = .none
      return
    }
    scaling = try RopeScaling(section, maxPositionEmbeddings: maxPositionEmbeddings)
  }
}

extension RopeScaling {
  fileprivate init(_ section: ConfigurationReader, maxPositionEmbeddings: Int) throws(CheckpointError) {
    let positions = 1...(1 << 40)
    func original() throws(CheckpointError) -> Int {
      try section.integer("original_max_position_embeddings", positions, default: maxPositionEmbeddings)
    }
    let newer = try section.string("rope_type")
    let older = try section.string("type")
    let kind = newer ?? older ?? "default"
    switch kind {
    case "default", "none": self = .none
    case "linear": self = .linear(factor: try section.number("factor", 1e-3...1e6))
    case "llama3":
      let low = try section.number("low_freq_factor", 1e-6...1e6)
      let high = try section.number("high_freq_factor", 1e-6...1e6)
      guard high > low else {
        throw section.invalid("high_freq_factor", "greater than low_freq_factor (\(low))", .number(high))
      }
      self = .llama3(
        Llama3Scaling(
          factor: try section.number("factor", 1e-3...1e6), lowFrequencyFactor: low, highFrequencyFactor: high,
          originalMaxPositionEmbeddings: try original()))
    case "yarn":
      let original = try original()
      let derived = max(1, Double(maxPositionEmbeddings) / Double(original))
      // Zero means "not given" to transformers.
      let fast = try section.number("beta_fast", 0...1e6, default: 32)
      let slow = try section.number("beta_slow", 0...1e6, default: 1)
      self = .yarn(
        YarnScaling(
          factor: try section.number("factor", 1...1e6, default: derived), originalMaxPositionEmbeddings: original,
          betaFast: fast == 0 ? 32 : fast, betaSlow: slow == 0 ? 1 : slow,
          mscale: try section.optionalNumber("mscale", 0...1e3),
          mscaleAllDimensions: try section.optionalNumber("mscale_all_dim", 0...1e3),
          explicitAttentionFactor: try section.optionalNumber("attention_factor", 1e-6...1e6),
          truncates: try section.boolean("truncate", default: true)))
    default:
      throw .unsupportedFeature(
        "rope scaling '\(kind)' (expected default, linear, llama3 or yarn)", path: section.path)
    }
  }
}
