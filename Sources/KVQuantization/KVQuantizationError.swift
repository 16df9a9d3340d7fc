/// What can be wrong with a recipe or its scales.
public enum KVQuantizationError: Error, Hashable, Sendable, CustomStringConvertible {
  case unknownRecipe(String)
  case dimensionNotDivisible(dimension: Int, recipe: KVRecipe, unit: Int)
  case invalidDecodeScale(Float)
  case unknownScaleConvention(String)
  case scaleOfUnknownLayer(layer: Int, layerCount: Int)
  case scaleOfOneSide(layer: Int, present: String)
  case scaleNotPerTensor(name: String, layer: Int, elementCount: Int)
  case invalidScale(name: String, layer: Int, value: Float)
  case conventionNotKnown(source: String, reason: String)
  case rowSizeMismatch(recipe: KVRecipe, dimension: Int, codeBytes: Int, scaleBytes: Int)

  public var description: String {
    switch self {
    case .unknownRecipe(let name):
      let known = KVRecipe.allCases.map { ([$0.name] + $0.aliases).joined(separator: " or ") }
      let nearest = KVRecipe.nearest(to: name).map { "; try \($0.name), the nearest to it" } ?? "; try nvfp4"
      return "unknown KV cache dtype '\(name)'; expected one of: \(known.joined(separator: ", "))\(nearest)"
    case .dimensionNotDivisible(let dimension, let recipe, let unit):
      return """
        a head dimension of \(dimension) can't be stored in \(recipe.name): expected a multiple of \(unit); \
        try --kv-cache-dtype bf16
        """
    case .invalidDecodeScale(let scale):
      return """
        a decode scale of \(scale) can't be used: expected a positive number from 2^-126 to 2^116; \
        try calibrating the model again, or leave the scales out
        """
    case .unknownScaleConvention(let name):
      let known = KVScaleConvention.allCases.map(\.rawValue).joined(separator: ", ")
      return "unknown KV scale convention '\(name)'; expected one of: \(known)"
    case .scaleOfUnknownLayer(let layer, let layerCount):
      return """
        a KV scale names layer \(layer), but the model has layers 0 to \(layerCount - 1); \
        try the scales of this very model, or --kv-cache-scales none
        """
    case .scaleOfOneSide(let layer, let present):
      return """
        layer \(layer) has a KV scale for one side only (\(present)); expected one for keys and one for values; \
        try calibrating the model again, or --kv-cache-scales none
        """
    case .scaleNotPerTensor(let name, let layer, let elementCount):
      return """
        the KV scale \(name) of layer \(layer) has \(elementCount) values; expected one for the whole tensor, since scales \
        per channel or head are not supported; try --kv-cache-scales none
        """
    case .invalidScale(let name, let layer, let value):
      return """
        the KV scale \(name) of layer \(layer) is \(value); expected a positive finite number; \
        try calibrating the model again, or --kv-cache-scales none
        """
    case .conventionNotKnown(let source, let reason):
      return """
        the KV scales from \(source) do not say what they were calibrated for (\(reason)), and for a 4-bit cache that is a \
        factor of six; try --kv-scale-convention amax/448 (FP8), amax/2688 (NVFP4) or amax/6, or --kv-cache-scales none
        """
    case .rowSizeMismatch(let recipe, let dimension, let codeBytes, let scaleBytes):
      return """
        a row of \(dimension) values in \(recipe.name) is \(recipe.codeBytes(dimension: dimension)) bytes of codes and \
        \(recipe.scaleBytes(dimension: dimension)) of scales, found \(codeBytes) and \(scaleBytes); \
        try checking the recipe and the dimension against what wrote the row
        """
    }
  }
}
