import CSIMD
import Checkpoints
import KVQuantization
import ModelFamilies
import PagedCache
import TextCodec

extension Engine {
  /// Loads a Hugging Face model folder and starts an engine over it.
  /// - Parameters:
  ///   - model: the folder.
  ///   - progress: called with the share of the weights that is loaded.
  /// - Throws: `CheckpointError`, `TextCodecError`, `KVQuantizationError`, `PagedCacheError`, `EngineError`.
  public convenience init(
    model: String, configuration: EngineConfiguration, progress: @Sendable (Double) -> Void = { _ in }
  ) async throws {
    let runtime = try ModelRuntime(
      directory: model,
      attention: AttentionRequest(
        backend: configuration.attentionBackend ?? "auto", precision: configuration.attentionPrecision,
        recipes: configuration.recipes, pageSize: configuration.pageSize),
      threadCount: configuration.threadCount, speculation: configuration.speculation, progress: progress)
    try self.init(LoadedModel(runtime, configuration: configuration), configuration: configuration)
  }
}

extension LoadedModel {
  /// A model on the CPU with its tokenizer, its ends of sequence and the KV scales of its checkpoint.
  /// - Parameter tokenizer: the checkpoint's, where it has been read already.
  /// - Throws: `TextCodecError`, `KVQuantizationError`, `CheckpointError`.
  public init(
    _ runtime: ModelRuntime, configuration: EngineConfiguration, tokenizer: Tokenizer? = nil
  ) throws {
    let checkpoint = runtime.checkpoint
    let resolution = try configuration.kvScales.resolve(
      checkpoint, recipes: configuration.recipes, layerCount: runtime.model.layerCount)
    let operators = runtime.operators
    self.init(
      model: runtime.model, tokenizer: try tokenizer ?? Tokenizer(contentsOf: checkpoint.directory),
      endTokens: checkpoint.generation.eosTokenIDs, scales: resolution.layers, fingerprint: checkpoint.fingerprint,
      arithmetic: [
        "cpu", String(cString: nb_level_name(nb_level_active())), runtime.attentionDecision.name,
        runtime.attentionPrecision.rawValue,
        operators.weightType?.rawValue ?? "weights", "v\(nb_arithmetic_version())",
      ].joined(separator: "-"),
      encodeStatistics: { operators.encodeStatistics })
    if let speculation = configuration.speculation, let model = runtime.model as? any DraftingModel {
      // The files number draft layers behind the others.
      let all = try configuration.kvScales.resolve(
        checkpoint, recipes: speculation.recipes ?? configuration.recipes,
        layerCount: model.layerCount + model.draftLayerCount)
      draftScales = Array(all.layers.suffix(model.draftLayerCount))
    }
    attentionDecision = runtime.attentionDecision
    generation = checkpoint.generation
    warnings = resolution.warnings
  }
}

extension Checkpoint {
  /// Names the weights without reading all of them: a hash over every tensor's name, type, shape and the bytes at its ends.
  var fingerprint: String {
    var hash = XXH64()
    for name in tensorNames.sorted() {
      guard let tensor = try? tensor(named: name) else { continue }
      Array("\(name) \(tensor.dtype.rawValue) \(tensor.shape)\n".utf8).withUnsafeBytes { hash.update($0) }
      hash.update(UnsafeRawBufferPointer(rebasing: tensor.bytes.prefix(1024)))
      hash.update(UnsafeRawBufferPointer(rebasing: tensor.bytes.suffix(1024)))
    }
    return "\(configuration.architecture.rawValue)-\(String(hash.digest(), radix: 16))"
  }
}
