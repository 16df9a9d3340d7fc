import CSIMD
import KVQuantization

extension nb_region {
  /// The C view of a region of one record.
  public init(_ region: CacheRegion, record: UnsafeMutableRawPointer) {
    self.init(
      recipe: region.recipe.kernelRecipe, kind: region.kind.rawValue, dimension: Int32(region.dimension),
      codes: (record + region.codeOffset).assumingMemoryBound(to: UInt8.self),
      scales: (record + region.scaleOffset).assumingMemoryBound(to: UInt8.self))
  }
}
