import KVQuantization

extension PagePool {
  /// The FP32 factor of a region's rows in a layer.
  public func decodeScale(layer: Int, kind: CacheRegionKind) -> Float { scales[layer][kind] }
}

extension DecodeScales {
  /// The factor of a kind of region: keys and MLA's latent share the first of the pair, values and MLA's rotary key the second.
  public subscript(kind: CacheRegionKind) -> Float {
    switch kind {
    case .key, .latent: key
    case .value, .rope: value
    }
  }
}
