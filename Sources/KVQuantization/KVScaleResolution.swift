/// What the gate decided for one part of one layer's cache, and why.
public struct KVScaleDecision: Hashable, Sendable {
  public enum Side: String, Hashable, Sendable { case key, value, latent, rope }

  public enum Action: Hashable, Sendable {
    /// The recipe has no second level and no scale was there.
    case notNeeded
    /// No scale: 1, and values beyond the largest code saturate.
    case unscaled
    /// No scale: 1, and the share of subnormal and zero block scales is watched.
    case watched
    /// The scale is of the recipe's own convention.
    case used(KVScaleConvention)
    /// From another convention, and times the headroom that the source asks for.
    case converted(from: KVScaleConvention, to: KVScaleConvention, headroom: Float = 1)
    /// The recipe has no second level to put a scale in.
    case ignored(KVRecipe)

    public var reason: String {
      switch self {
      case .notNeeded: "no scale, and none needed"
      case .unscaled: "no scale: 1, magnitudes beyond 448 saturate"
      case .watched: "no scale: 1, block scales are watched for underflow"
      case .used(let convention): "used as is, calibrated as \(convention.rawValue)"
      case .converted(let from, let to, 1): "converted from \(from.rawValue) to \(to.rawValue)"
      case .converted(let from, let to, let headroom):
        "converted from \(from.rawValue) to \(to.rawValue), times \(headroom) of headroom"
      case .ignored(let recipe): "ignored: a \(recipe.name) cache has no scale of its own"
      }
    }
  }

  public let layer: Int
  public let side: Side
  /// The scale as found.
  public let found: Float?
  public let action: Action
  /// What encode divides by and decode multiplies with.
  public let decodeScale: Float
}

/// The outcome of the gate.
public struct KVScaleResolution: Hashable, Sendable {
  /// One pair a layer; MLA: latent and rotary key.
  public private(set) var layers: [DecodeScales]
  /// Every decision, layer after layer.
  public private(set) var decisions: [KVScaleDecision] = []
  /// Sentences for the user, each once.
  public internal(set) var warnings: [String] = []
  /// True where an uncalibrated recipe should be watched for subnormal and zero block scales.
  public internal(set) var watchesBlockScales = false

  init(layerCount: Int) {
    layers = Array(repeating: .one, count: layerCount)
  }

  /// The decisions in one line: how many of each kind.
  public var summary: String {
    var counts: [(reason: String, count: Int)] = []
    for decision in decisions {
      let reason = "\(decision.side.rawValue): \(decision.action.reason)"
      if let place = counts.firstIndex(where: { $0.reason == reason }) {
        counts[place].count += 1
      } else {
        counts.append((reason, 1))
      }
    }
    return counts.map { "\($0.reason) (\($0.count) \($0.count == 1 ? "layer" : "layers"))" }.joined(separator: "; ")
  }

  mutating func decide(
    _ layer: Int, _ side: KVScaleDecision.Side, found: Float?, _ action: KVScaleDecision.Action, _ scale: Float
  ) {
    decisions.append(KVScaleDecision(layer: layer, side: side, found: found, action: action, decodeScale: scale))
    switch side {
    case .key, .latent: layers[layer].key = scale
    case .value, .rope: layers[layer].value = scale
    }
  }

  /// One sentence each for scales that were ignored, layers that have none, and the deprecated shared scale.
  mutating func warn(_ scales: KVScaleSet, _ recipes: [KVRecipe]) {
    let ignored = decisions.filter { if case .ignored = $0.action { true } else { false } }
    let isUsed = decisions.contains { decision in
      switch decision.action {
      case .used, .converted: true
      default: false
      }
    }
    let name = recipes.first { !$0.usesDecodeScale }?.name ?? ""
    if let range = scales.range, !isUsed, !ignored.isEmpty {
      warnings.append(
        """
        \(scales.count) KV scales from \(scales.source) (\(range.lowerBound) to \(range.upperBound)) are ignored: a \(name) \
        cache stores values without a scale
        """)
    } else if let side = ignored.first?.side, side == .key || side == .value {
      // MLA's rotary key shares the scale of the latent, which is used: nothing is lost there.
      let values = ignored.compactMap(\.found)
      warnings.append(
        """
        \(values.count) KV scales of \(side.rawValue)s from \(scales.source) (\(values.min() ?? 0) to \(values.max() ?? 0)) are \
        ignored: \(side.rawValue)s in \(name) are stored without a scale
        """)
    }
    let missing = decisions.filter { $0.found == nil && ($0.action == .unscaled || $0.action == .watched) }
    if !missing.isEmpty {
      let layers = Set(missing.map(\.layer)).sorted()
      let list = layers.prefix(8).map(String.init).joined(separator: ", ") + (layers.count > 8 ? ", ..." : "")
      warnings.append("\(scales.source) has no KV scale for layers \(list); they use 1")
    }
    if scales.isShared {
      warnings.append("\(scales.source) uses the deprecated kv_scale; it is taken for keys and values")
    }
  }
}
