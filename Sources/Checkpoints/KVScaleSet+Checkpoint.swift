import KVQuantization

extension KVScaleSet {
  /// The KV scales among a checkpoint's tensors; nil where it has none.
  ///
  /// Understood are the names of ModelOpt (`k_proj.k_scale`, `v_proj.v_scale`), vLLM (`attn.k_scale`), compressed-tensors and
  /// Quark (`k_proj.output_scale`), and the deprecated `kv_scale` for both sides. The convention is that of the cache which the
  /// quantisation config names.
  /// - Throws: `CheckpointError` for a scale tensor of another type than a float, or two scales for one side of a layer.
  public init?(checkpoint: Checkpoint) throws(CheckpointError) {
    var scales: [Scale] = []
    for name in checkpoint.tensorNames where KVScaleName(name) != nil {
      let tensor = try checkpoint.tensor(named: name)
      scales.append(
        try Scale(name: name, dtype: tensor.dtype, shape: tensor.shape, bytes: tensor.bytes, path: tensor.path))
    }
    try self.init(
      tensors: scales, quantization: checkpoint.configuration.quantization, directory: checkpoint.directory)
  }

  /// - Parameter tensors: by their names in the checkpoint; those that `KVScaleName` doesn't know are left out.
  init?(
    tensors: [Scale], quantization: QuantizationConfiguration?, directory: String
  ) throws(CheckpointError) {
    var layers: [Int: Layer] = [:]
    var kinds: [String] = []
    var isShared = false
    for scale in tensors {
      guard let place = KVScaleName(scale.name) else { continue }
      var layer = layers[place.layer] ?? Layer()
      if place.side != .value { try Self.set(&layer.key, scale, directory) }
      if place.side != .key { try Self.set(&layer.value, scale, directory) }
      isShared = isShared || place.side == .both
      layers[place.layer] = layer
      if !kinds.contains(place.kind) { kinds.append(place.kind) }
    }
    if layers.isEmpty { return nil }
    let (convention, reason) = Self.convention(quantization, isShared: isShared)
    self.init(
      layers: layers, convention: convention, conventionReason: reason,
      source: "the checkpoint's \(kinds.joined(separator: " and "))",
      isShared: isShared)
  }

  private static func set(_ side: inout Scale?, _ scale: Scale, _ path: String) throws(CheckpointError) {
    if let other = side {
      throw .invalidIndex(
        path: path, reason: "'\(other.name)' and '\(scale.name)' are both the KV scale of one side of one layer")
    }
    side = scale
  }

  private static func convention(
    _ quantization: QuantizationConfiguration?, isShared: Bool
  ) -> (KVScaleConvention?, String) {
    guard let quantization else {
      // The name was in use only when FP8 was the one quantised cache.
      return isShared ? (.fp8, "kv_scale is of FP8 caches only") : (nil, "it has no quantization_config")
    }
    switch quantization.kvCache {
    case .fp8: return (.fp8, "its quantisation config names an FP8 KV cache")
    case .nvfp4: return (.nvfp4, "its quantisation config names an NVFP4 KV cache")
    case .other(let name): return (nil, "its quantisation config names the KV cache '\(name)'")
    case nil:
      return isShared ? (.fp8, "kv_scale is of FP8 caches only") : (nil, "its quantisation config names no KV cache")
    }
  }
}

extension KVScaleSet.Scale {
  /// The first value of a scale tensor.
  /// - Throws: `CheckpointError.invalidTensor` for a tensor that is empty or no float.
  init(
    name: String, dtype: TensorType, shape: [Int], bytes: UnsafeRawBufferPointer, path: String
  ) throws(CheckpointError) {
    let elementCount = shape.reduce(1, *)
    guard elementCount > 0 else {
      throw .invalidTensor(name: name, path: path, expected: "to hold a KV scale", found: "no values")
    }
    let value: Float
    switch dtype {
    case .float32: value = bytes.loadUnaligned(as: Float.self)
    case .float64: value = Float(bytes.loadUnaligned(as: Double.self))
    case .bfloat16: value = Float(bitPattern: UInt32(bytes.loadUnaligned(as: UInt16.self)) << 16)
    case .float16: value = Self.float(half: bytes.loadUnaligned(as: UInt16.self))
    default:
      throw .invalidTensor(
        name: name, path: path, expected: "to hold a KV scale in F32, F16 or BF16", found: dtype.rawValue)
    }
    self.init(name: name, value: value, elementCount: elementCount)
  }

  private static func float(half bits: UInt16) -> Float {
    let sign: Float = bits >> 15 == 0 ? 1 : -1
    let exponent = Int(bits >> 10 & 31)
    let fraction = Float(bits & 1023)
    if exponent == 31 { return fraction == 0 ? sign * .infinity : .nan }
    if exponent == 0 { return sign * fraction * 0x1p-24 }
    return sign * Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction / 1024)
  }
}

/// What the name of a tensor says of a KV scale.
struct KVScaleName: Equatable {
  enum Side { case key, value, both }

  let layer: Int
  let side: Side
  /// The last two parts, for messages.
  let kind: String

  init?(_ name: String) {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard let last = parts.last, parts.count >= 3, let mark = parts.firstIndex(of: "layers"),
      parts.indices.contains(mark + 1), let layer = Int(parts[mark + 1]), layer >= 0,
      parts[(mark + 2)...].contains(where: { $0 == "self_attn" || $0 == "attn" || $0 == "attention" })
    else { return nil }
    let owner = parts[parts.count - 2]
    switch (owner, last) {
    case (_, "k_scale"): side = .key
    case (_, "v_scale"): side = .value
    case (_, "kv_scale"): side = .both
    case ("k_proj", "output_scale"): side = .key
    case ("v_proj", "output_scale"): side = .value
    default: return nil
    }
    self.layer = layer
    kind = "\(owner).\(last)"
  }
}
