import ArgumentParser
import Checkpoints
import Engine
import KVQuantization
import Operators
import PagedCache

struct LogitsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logits",
    abstract: "Write the logits of a teacher-forced run, to compare with another engine.",
    discussion: """
      Every token attends to what the cache stores, its own chunk included, so the result doesn't depend on --chunk-size. \
      Attention is the reference's unless --attention-backend cpu asks for the fast one, which rounds queries and probabilities to \
      23 bits, or with --attention-precision fast to 16, where keys and values have four. KV scales are the checkpoint's own; --kv-cache-scales auto takes a calibrated kv_scales.json too. The output is a safetensors file with 'logits' [tokens, vocabulary] in float32 and 'tokens' [tokens] in int32.
      """)

  @OptionGroup var modelOptions: ModelOptions
  @OptionGroup var cacheOptions: CacheOptions

  @Option(help: "Token ids separated by commas or spaces, or a file that holds such a list.")
  var tokens: String

  @Option(help: "The safetensors file to write.")
  var output: String

  @Option(help: "Tokens a forward step (default: all at once).")
  var chunkSize: Int?

  func validate() throws {
    if let chunkSize, chunkSize < 1 {
      throw ValidationError("expected --chunk-size of at least 1, found \(chunkSize)")
    }
  }

  func run() throws {
    let recipes = try cacheOptions.recipes()
    let ids = try TokenList.read(tokens)
    var options = modelOptions
    if options.attentionBackend == "auto" { options.attentionBackend = "reference" }
    let runtime = try options.load(cache: cacheOptions)
    let model = runtime.model
    try TokenList.check(ids, vocabularySize: model.vocabularySize, contextLimit: model.contextLimit)

    let layout = try model.cacheLayout(recipes, pageSize: cacheOptions.pageSize)
    let pageCount = (ids.count + layout.pageSize - 1) / layout.pageSize
    let scales = try cacheOptions.scaleOptions.request(default: .checkpoint).resolve(
      runtime.checkpoint, recipes: recipes, layerCount: model.layerCount)
    for warning in scales.warnings { Console.error("warning: \(warning)") }
    let pool = try PagePool(
      layout: layout, layerCount: model.layerCount, pageCount: pageCount,
      scales: scales.layers)
    var writer = try SafetensorsWriter(
      path: output,
      tensors: [
        .init(name: "tokens", dtype: .int32, shape: [ids.count]),
        .init(name: "logits", dtype: .float32, shape: [ids.count, model.vocabularySize]),
      ],
      metadata: ["kv_cache_dtype_k": recipes.key.name, "kv_cache_dtype_v": recipes.value.name])
    try ids.withUnsafeBytes { try writer.append($0) }

    // Without a chunk size, steps still have an end, so that the logits of a long run don't have to fit in memory at once.
    let chunk = min(chunkSize ?? 1024, ids.count)
    let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: chunk * model.vocabularySize)
    defer { logits.deallocate() }
    var batch = StepBatch()
    for start in stride(from: 0, to: ids.count, by: chunk) {
      let new = ids[start..<min(start + chunk, ids.count)]
      batch.removeAll()
      batch.append(tokens: new, start: start, pages: (0..<pageCount).map { Int32($0) }, logits: .all)
      try model.forward(batch, pool: pool, logits: logits)
      try writer.append(
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(logits)[..<(new.count * model.vocabularySize * 4)]))
    }
    try writer.finish()
    Console.error("wrote \(ids.count) x \(model.vocabularySize) logits to \(output)")
  }
}
