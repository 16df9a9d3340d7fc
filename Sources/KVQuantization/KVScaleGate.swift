/// Decides, once and at load, what scales from a checkpoint do for the cache that was asked for: a scale calibrated for FP8 on a
/// BF16 cache would shrink every attention score 16 to 50 times, so a scale goes only where it belongs, in encode and decode
/// once, or nowhere.
///
/// Pure in its arguments. Recipes with a second level (fp8_e4m3, nvfp4) take scales of their convention as they are and others
/// converted; recipes without one (f32, bf16, fp4_mx_block16, mxfp4) ignore them with one warning.
public struct KVScaleGate: Hashable, Sendable {
  /// Recipe of keys, or of MLA's latent.
  public var key: KVRecipe
  /// Recipe of values, or of MLA's rotary key.
  public var value: KVRecipe
  /// MLA's rotary key takes the scale of keys, since both lie in what checkpoints calibrate as keys; our own calibration measures it
  /// apart.
  public var isMLA: Bool
  public var layerCount: Int
  /// Layers behind the last, for multi-token prediction: their scales are no error, and are left alone.
  public var extraLayerCount: Int
  /// From `--kv-scale-convention`; decides where the source doesn't say.
  public var assumedConvention: KVScaleConvention?

  public init(
    key: KVRecipe, value: KVRecipe, isMLA: Bool = false, layerCount: Int, extraLayerCount: Int = 0,
    assumedConvention: KVScaleConvention? = nil
  ) {
    self.key = key
    self.value = value
    self.isMLA = isMLA
    self.layerCount = layerCount
    self.extraLayerCount = extraLayerCount
    self.assumedConvention = assumedConvention
  }

  /// - Parameter scales: nil or empty for a model without scales, or for `--kv-cache-scales none`.
  /// - Throws: `KVQuantizationError` where a scale is needed and unusable, or its convention can't be known.
  public func resolve(_ scales: KVScaleSet?) throws(KVQuantizationError) -> KVScaleResolution {
    var resolution = KVScaleResolution(layerCount: layerCount)
    guard let scales, !scales.isEmpty else {
      for layer in 0..<layerCount {
        for part in parts { resolution.decide(layer, part.side, found: nil, part.recipe.withoutScales, 1) }
      }
      resolution.watchesBlockScales = parts.contains { $0.recipe.withoutScales == .watched }
      return resolution
    }
    if let stray = scales.layers.keys.filter({ !(0..<layerCount + extraLayerCount).contains($0) }).min() {
      throw .scaleOfUnknownLayer(layer: stray, layerCount: layerCount)
    }
    let isUsed = parts.contains { $0.recipe.usesDecodeScale }
    let convention = isUsed ? try settledConvention(scales, &resolution) : nil
    if isUsed { try validate(scales) }
    for layer in 0..<layerCount {
      for part in parts {
        let found = part.scale(of: scales.layers[layer], calibratedApart: scales.convention == .amax)
        try resolve(layer, part, found, convention, headroom: scales.headroom, &resolution)
      }
    }
    resolution.warn(scales, parts.map(\.recipe))
    return resolution
  }

  private struct Part {
    let side: KVScaleDecision.Side
    let recipe: KVRecipe
    let usesKeyScale: Bool

    /// - Parameter calibratedApart: the source measured MLA's rotary keys by themselves, and has them as values.
    func scale(of layer: KVScaleSet.Layer?, calibratedApart: Bool) -> KVScaleSet.Scale? {
      guard usesKeyScale else { return layer?.value }
      return side == .rope && calibratedApart ? layer?.value ?? layer?.key : layer?.key
    }
  }

  private var parts: [Part] {
    [
      Part(side: isMLA ? .latent : .key, recipe: key, usesKeyScale: true),
      Part(side: isMLA ? .rope : .value, recipe: value, usesKeyScale: isMLA),
    ]
  }

  /// The convention of the source; where it is silent, the one assumed; where nobody says, an FP8 cache takes scales as every
  /// engine of the field does, with a warning, and a 4-bit cache, where it is a factor of six, refuses.
  private func settledConvention(
    _ scales: KVScaleSet, _ resolution: inout KVScaleResolution
  ) throws(KVQuantizationError) -> KVScaleConvention {
    if let convention = scales.convention {
      if let assumedConvention, assumedConvention != convention {
        resolution.warnings.append(
          """
          --kv-scale-convention \(assumedConvention.rawValue) is ignored: the KV scales from \(scales.source) are \
          \(convention.rawValue) (\(scales.conventionReason))
          """)
      }
      return convention
    }
    if let assumedConvention { return assumedConvention }
    guard parts.allSatisfy({ !$0.recipe.usesDecodeScale || $0.recipe == .fp8E4M3 }) else {
      throw .conventionNotKnown(source: scales.source, reason: scales.conventionReason)
    }
    resolution.warnings.append(
      """
      the KV scales from \(scales.source) do not say what they were calibrated for (\(scales.conventionReason)); they are \
      taken as amax/448, the convention of FP8 caches: pass --kv-scale-convention to say so, or --kv-cache-scales none
      """)
    return .fp8
  }

  private func validate(_ scales: KVScaleSet) throws(KVQuantizationError) {
    for (layer, found) in scales.layers.sorted(by: { $0.key < $1.key }) {
      for scale in [found.key, found.value].compactMap({ $0 }) {
        guard scale.elementCount == 1 else {
          throw .scaleNotPerTensor(name: scale.name, layer: layer, elementCount: scale.elementCount)
        }
        guard scale.value > 0, scale.value.isFinite else {
          throw .invalidScale(name: scale.name, layer: layer, value: scale.value)
        }
      }
      // MLA caches one thing, calibrated as keys; values need none.
      if found.key == nil || (found.value == nil && !isMLA) {
        throw .scaleOfOneSide(layer: layer, present: found.key?.name ?? found.value?.name ?? "")
      }
    }
  }

  private func resolve(
    _ layer: Int, _ part: Part, _ found: KVScaleSet.Scale?, _ convention: KVScaleConvention?, headroom: Float,
    _ resolution: inout KVScaleResolution
  ) throws(KVQuantizationError) {
    guard let found else {
      resolution.decide(layer, part.side, found: nil, part.recipe.withoutScales, 1)
      if part.recipe.withoutScales == .watched { resolution.watchesBlockScales = true }
      return
    }
    guard let convention, let native = KVScaleConvention.native(to: part.recipe) else {
      resolution.decide(layer, part.side, found: found.value, .ignored(part.recipe), 1)
      return
    }
    let scale = convention.convert(found.value, to: native) * headroom
    guard KVRecipe.decodeScaleRange.contains(scale) else {
      throw .invalidScale(name: found.name, layer: layer, value: found.value)
    }
    let action: KVScaleDecision.Action =
      convention == native && headroom == 1
      ? .used(native) : .converted(from: convention, to: native, headroom: headroom)
    resolution.decide(layer, part.side, found: found.value, action, scale)
  }
}

extension KVRecipe {
  fileprivate var withoutScales: KVScaleDecision.Action {
    switch self {
    case .nvfp4, .nvfp4FourOverSix: .watched
    case .fp8E4M3: .unscaled
    case .f32, .bf16, .fp4MXBlock16, .mxfp4: .notNeeded
    }
  }
}
