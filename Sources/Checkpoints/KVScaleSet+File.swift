import JSON
import KVQuantization

extension KVScaleSet {
  /// Name of the file beside a model that `--kv-cache-scales auto` finds.
  public static let fileName = "kv_scales.json"

  /// Reads per-layer scales from a JSON file: our own (`json`), or vLLM's of `--quantization-param-path`,
  /// {"kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": {rank: {layer: scale}}}}, one scale for both sides.
  /// - Throws: `CheckpointError` for another schema.
  public init(contentsOf path: String) throws(CheckpointError) {
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue.parse(contentsOf: path, maximumDepth: 16, refusesDuplicateKeys: true)
    } catch { throw .json(path: path, error) }
    try self.init(json: document, path: path)
  }

  /// The same from a parsed document.
  /// - Parameter path: named in errors, and the scales' source.
  public init(json: JSONValue, path: String) throws(CheckpointError) {
    let reader = try ConfigurationReader(json, path: path)
    if let section = try reader.section("kv_cache") {
      try self.init(paramFile: section, path: path)
    } else {
      try self.init(own: reader, path: path)
    }
  }

  private init(own reader: ConfigurationReader, path: String) throws(CheckpointError) {
    guard let section = try reader.section("layers") else { throw .missingKey("layers", path: path) }
    var convention: KVScaleConvention?
    if let name = try reader.string("convention") {
      do throws(KVQuantizationError) { convention = try KVScaleConvention.named(name) } catch {
        throw .invalidValue(
          key: "convention", path: path,
          expected: "one of \(KVScaleConvention.allCases.map(\.rawValue).joined(separator: ", "))", found: "\"\(name)\""
        )
      }
    }
    var layers: [Int: Layer] = [:]
    for (name, value) in section.object {
      let layer = try Self.layer(name, section)
      func side(_ key: String) throws(CheckpointError) -> Scale? {
        guard let number = value[key], !number.isNull else { return nil }
        return try Self.scale(number, name: "layers.\(name).\(key)", section)
      }
      layers[layer] = Layer(key: try side("k"), value: try side("v"))
    }
    self.init(
      layers: layers, convention: convention,
      conventionReason: convention == nil ? "it has no 'convention'" : "it says so", source: path,
      headroom: Float(try reader.number("headroom", 1...1024, default: 1)))
  }

  private init(paramFile section: ConfigurationReader, path: String) throws(CheckpointError) {
    let dtype = try section.string("dtype") ?? "nothing"
    guard let ranks = try section.section("scaling_factor") else {
      throw .missingKey("kv_cache.scaling_factor", path: path)
    }
    guard ranks.object.count == 1, let rank = ranks.object.keys.first, let factors = try ranks.section(rank) else {
      throw .invalidValue(
        key: "kv_cache.scaling_factor", path: path, expected: "scales of one tensor-parallel rank",
        found: "\(ranks.object.count) ranks")
    }
    var layers: [Int: Layer] = [:]
    for (name, value) in factors.object {
      let scale = try Self.scale(value, name: "scaling_factor.\(rank).\(name)", factors)
      layers[try Self.layer(name, factors)] = Layer(key: scale, value: scale)
    }
    let isFP8 = dtype == "float8_e4m3fn" || dtype == "fp8" || dtype == "fp8_e4m3"
    self.init(
      layers: layers, convention: isFP8 ? .fp8 : nil, conventionReason: "its kv_cache.dtype is '\(dtype)'", source: path
    )
  }

  private static func layer(_ name: String, _ reader: ConfigurationReader) throws(CheckpointError) -> Int {
    guard let layer = Int(name), layer >= 0 else {
      throw .invalidValue(
        key: reader.prefix + name, path: reader.path, expected: "the index of a layer", found: "\"\(name)\"")
    }
    return layer
  }

  private static func scale(
    _ value: JSONValue, name: String, _ reader: ConfigurationReader
  ) throws(CheckpointError) -> Scale {
    let elements = value.arrayValue ?? [value]
    guard let first = elements.first?.doubleValue else {
      throw .invalidValue(key: name, path: reader.path, expected: "a number", found: value.kindName)
    }
    return Scale(name: name, value: Float(first), elementCount: elements.count)
  }

  /// Our own file: {"format": "kv_scales", "version": 1, "convention": ..., "headroom": ..., "layers": {"0": {"k": ..., "v":
  /// ...}}}.
  public var json: JSONValue {
    var layers = JSONObject()
    for (layer, scales) in self.layers.sorted(by: { $0.key < $1.key }) {
      var members = JSONObject()
      if let key = scales.key { members["k"] = .number(Double(key.value)) }
      if let value = scales.value { members["v"] = .number(Double(value.value)) }
      layers["\(layer)"] = .object(members)
    }
    var document = JSONObject([("format", "kv_scales"), ("version", 1)])
    if let convention { document["convention"] = .string(convention.rawValue) }
    if headroom != 1 { document["headroom"] = .number(Double(headroom)) }
    document["layers"] = .object(layers)
    return .object(document)
  }
}
