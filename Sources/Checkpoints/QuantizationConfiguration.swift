import JSON

/// How a checkpoint's weights, and the KV cache it was calibrated for, are quantised: `quantization_config` of config.json, or
/// ModelOpt's hf_quant_config.json.
public struct QuantizationConfiguration: Hashable, Sendable {
  /// `quant_method`: fp8, modelopt, compressed-tensors, quark, awq, gptq, ...
  public var method: String
  /// `quant_algo` of ModelOpt or `fmt`/`format` of others.
  public var algorithm: String?
  /// Rows and columns of a weight block that share a scale (`weight_block_size` of FP8).
  public var weightBlockSize: [Int]?
  /// Modules that stay unquantised, as written.
  public var ignoredModules: [String]
  /// The KV cache that scales were calibrated for; nil where the file doesn't say.
  public var kvCache: KVCacheAlgorithm?

  /// What a KV cache was calibrated for.
  public enum KVCacheAlgorithm: Hashable, Sendable {
    case fp8
    case nvfp4
    /// The file's own words.
    case other(String)

    init(name: String) {
      switch name.lowercased() {
      case "fp8", "fp8_e4m3", "float8_e4m3fn": self = .fp8
      case "nvfp4", "fp4": self = .nvfp4
      default: self = .other(name)
      }
    }
  }

  /// True where the weights are FP8 in blocks, as DeepSeek publishes them.
  public var isBlockFP8: Bool { method == "fp8" && weightBlockSize != nil }
}

extension QuantizationConfiguration {
  /// Reads `quantization_config` (or the older `compression_config`).
  init?(_ reader: ConfigurationReader) throws(CheckpointError) {
    let older = try reader.section("compression_config")
    guard let section = try reader.section("quantization_config") ?? older else { return nil }
    method = try section.string("quant_method") ?? "unknown"
    let format = try section.string("fmt")
    let otherFormat = try section.string("format")
    algorithm = try section.string("quant_algo") ?? format ?? otherFormat
    weightBlockSize = try section.integers("weight_block_size", 1...65_536)
    if let size = weightBlockSize, size.count != 2 {
      throw section.invalid("weight_block_size", "two integers", .array(size.map { .integer(Int64($0)) }))
    }
    let ignored = section.value("modules_to_not_convert") ?? section.value("ignore") ?? section.value("exclude_modules")
    ignoredModules = ignored?.arrayValue?.compactMap(\.stringValue) ?? []
    kvCache = try Self.kvCache(section)
  }

  /// Reads ModelOpt's file beside config.json; nil where there is none.
  init?(directory: String) throws(CheckpointError) {
    let path = "\(directory)/hf_quant_config.json"
    let document: JSONValue
    do throws(JSONError) {
      guard let found = try JSONValue.parse(ifPresent: path) else { return nil }
      document = found
    } catch { throw .json(path: path, error) }
    let reader = try ConfigurationReader(document, path: path)
    guard let section = try reader.section("quantization") else { return nil }
    method = try reader.section("producer")?.string("name") ?? "modelopt"
    algorithm = try section.string("quant_algo")
    weightBlockSize = nil
    ignoredModules = section.value("exclude_modules")?.arrayValue?.compactMap(\.stringValue) ?? []
    kvCache = try section.string("kv_cache_quant_algo").map { KVCacheAlgorithm(name: $0) }
  }

  private static func kvCache(_ section: ConfigurationReader) throws(CheckpointError) -> KVCacheAlgorithm? {
    if let name = try section.string("kv_cache_quant_algo") { return KVCacheAlgorithm(name: name) }
    // compressed-tensors, and ModelOpt since it writes into config.json: {"num_bits": 8, "type": "float", ...}.
    if let scheme = try section.section("kv_cache_scheme") {
      let bits = try scheme.integer("num_bits", 1...64, default: 8)
      let kind = try scheme.string("type") ?? "float"
      return kind == "float" && bits == 8 ? .fp8 : kind == "float" && bits == 4 ? .nvfp4 : .other("\(kind)\(bits)")
    }
    // Quark: the outputs of k_proj and v_proj have a type of their own.
    if let layers = try section.section("layer_quant_config") {
      for (name, layer) in layers.object where name.hasSuffix("k_proj") || name.hasSuffix("v_proj") {
        if let type = layer["output_tensors"]?["dtype"]?.stringValue { return KVCacheAlgorithm(name: type) }
      }
    }
    return nil
  }
}
