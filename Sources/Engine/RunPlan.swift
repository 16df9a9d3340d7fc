import CPUBackend
import CSIMD
import Checkpoints
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import TextCodec

/// Everything that a run decides before it reads a weight, each decision with its reason: what `--dry-run` prints. Commands make it
/// first, so that what can't work is refused before a model is loaded.
public struct RunPlan: Sendable {
  /// One thing decided, and who or what decided it.
  public struct Decision: Equatable, Sendable {
    /// What the decision belongs to, such as "kv_cache".
    public let section: String
    public let name: String
    public let value: JSONValue
    public internal(set) var reason: String

    public init(_ section: String, _ name: String, _ value: JSONValue, _ reason: String) {
      self.section = section
      self.name = name
      self.value = value
      self.reason = reason
    }
  }

  public let directory: String
  public let model: ModelConfiguration
  public let generation: GenerationConfiguration
  public let tokenizer: Tokenizer
  public let recipes: CacheRecipes
  public let attention: AttentionChoice
  public let scales: KVScaleResolution
  /// Of the draft layers, whose numbers follow the main model's.
  private let draftScales: [KVScaleDecision]
  /// Requests that the engine will take.
  public let limits: RequestLimits
  /// In the order in which they are made.
  public private(set) var decisions: [Decision] = []
  /// What works, but not as well as it could, and weights that a real run will fail on.
  public let warnings: [String]

  /// Resolves everything for a model folder. Of its weight files only the headers and KV scales are read; what they can't tell,
  /// because they are missing or broken, is a warning.
  /// - Parameters:
  ///   - attention: which backends are wanted, and for which cache.
  ///   - weightType: what weights are converted to when loaded; nil keeps the checkpoint's.
  /// - Throws: what loading would: `CheckpointError`, `SupportError`, `KVQuantizationError`, `TextCodecError`, `PagedCacheError`,
  ///   `EngineError`.
  public init(
    directory: String, attention request: AttentionRequest, configuration: EngineConfiguration,
    weightType: CPUWeightType? = nil
  ) throws {
    let model = try ModelConfiguration(directory: directory)
    let choice = try request.resolve(model)
    let drafts = try DraftPlan(model, request, choice, configuration, path: directory)
    let preview = try KVScalePreview(directory: directory, configuration: model)
    let found = try configuration.kvScales.found(directory) { preview.scales }
    let scales = try configuration.kvScales.resolve(
      found, model, recipes: configuration.recipes, layerCount: model.layerCount)
    let draftScales = try drafts.map {
      try configuration.kvScales.resolve(
        found, model, recipes: $0.recipes, layerCount: model.layerCount + $0.layerCount)
    }
    let tokenizer = try Tokenizer(contentsOf: directory)
    let layout = try configuration.recipes.layout(of: model.kvGeometry, pageSize: configuration.pageSize)
    let contextLength = min(model.maxPositionEmbeddings, configuration.contextLength ?? .max)
    let pageBytes = layout.recordBytes * model.layerCount + (drafts?.pageBytes ?? 0)
    let pool = try PoolPlan.resolve(
      configuration, pageBytes: pageBytes, contextLength: contextLength, availableMemory: PoolPlan.availableMemory())

    self.directory = directory
    self.model = model
    generation = try GenerationConfiguration(directory: directory, model: model)
    self.tokenizer = tokenizer
    recipes = configuration.recipes
    attention = choice
    self.scales = scales
    self.draftScales = draftScales?.decisions.filter { $0.layer >= model.layerCount } ?? []
    limits = RequestLimits(
      contextLength: contextLength, vocabularySize: model.vocabularySize,
      poolTokens: pool.pageCount * configuration.pageSize, tokenizer: tokenizer)
    warnings =
      choice.warnings + scales.warnings
      + (preview.obstacle.map { ["the weights can't be loaded as they are, and their KV scales aren't known: \($0)"] }
        ?? [])

    decideModel(weightBytes: preview.weightBytes, weightType)
    decideCache(configuration, layout, pool, pageBytes: pageBytes)
    if let drafts { decideDrafts(drafts) }
    decideScales(configuration.kvScales, found)
    decideAttention(choice)
    decideEngine(configuration)
  }

  /// Puts the flag that decided in place of a reason.
  public mutating func explain(_ section: String, _ name: String, _ reason: String) {
    for index in decisions.indices where decisions[index].section == section && decisions[index].name == name {
      decisions[index].reason = reason
    }
  }

  private mutating func decide(_ section: String, _ name: String, _ value: JSONValue, _ reason: String) {
    decisions.append(Decision(section, name, value, reason))
  }
}

// MARK: The decisions

extension RunPlan {
  private mutating func decideModel(weightBytes: Int?, _ weightType: CPUWeightType?) {
    decide("model", "folder", .string(directory), "asked for")
    decide("model", "architecture", .string(model.architecture.rawValue), "config.json")
    let attention =
      switch model.kvGeometry {
      case .mha(let kvHeads, let dimension):
        "GQA, \(model.queryHeadCount) query heads over \(kvHeads) KV heads of \(dimension)"
      case .mla(let latent, let rope):
        "MLA, \(model.queryHeadCount) query heads over a latent of \(latent) and a rotary key of \(rope)"
      }
    decide("model", "attention", .string(attention), "config.json")
    decide("model", "layers", .integer(Int64(model.layerCount)), "config.json")
    decide(
      "model", "weight_bytes", weightBytes.map { .integer(Int64($0)) } ?? .null,
      "the weight files, not read")
    decide(
      "model", "weight_dtype", .string(weightType?.rawValue ?? "auto"),
      weightType == nil ? "as in the checkpoint" : "--weight-dtype")
  }

  private mutating func decideCache(
    _ configuration: EngineConfiguration, _ layout: CacheLayout, _ pool: PoolPlan, pageBytes: Int
  ) {
    let (first, second) = layout.recipeNames
    let names = model.kvGeometry.isMLA ? ("dtype_latent", "dtype_rope") : ("dtype_k", "dtype_v")
    decide("kv_cache", names.0, .string(first), "asked for")
    decide("kv_cache", names.1, .string(second), "asked for")
    decide("kv_cache", "layers", .integer(Int64(model.layerCount)), "every layer of the model")
    let own = layout.bytesPerToken * model.layerCount
    let ofDrafts = pageBytes / configuration.pageSize - own
    decide(
      "kv_cache", "bytes_per_token", .integer(Int64(own + ofDrafts)),
      "\(layout.bytesPerToken) a layer" + (ofDrafts > 0 ? ", \(ofDrafts) of the draft layers" : ""))
    decide("kv_cache", "page_size", .integer(Int64(configuration.pageSize)), "--page-size")
    decide("kv_cache", "pages", .integer(Int64(pool.pageCount)), pool.reason)
    decide("kv_cache", "tokens", .integer(Int64(limits.poolTokens)), "pages times page size")
    decide("kv_cache", "bytes", .integer(Int64(pool.pageCount * pageBytes)), "pages of \(pageBytes) bytes")
    decide(
      "kv_cache", "context_length", .integer(Int64(limits.contextLength)),
      limits.contextLength < model.maxPositionEmbeddings ? "--context-length" : "the model's own")
    decide("kv_cache", "shares_prefixes", .bool(configuration.sharesPrefixes), "--disable-radix-cache turns it off")
    decide("kv_cache", "swap_space", .integer(Int64(configuration.swapSpace)), "--swap-space, bytes")
  }

  private mutating func decideDrafts(_ drafts: DraftPlan) {
    let (first, second) = drafts.layout.recipeNames
    let names = drafts.layout.isMLA ? ("dtype_latent", "dtype_rope") : ("dtype_k", "dtype_v")
    decide("draft_kv_cache", names.0, .string(first), "--speculative-draft-kv-cache-dtype, else the main model's")
    decide("draft_kv_cache", names.1, .string(second), "--speculative-draft-kv-cache-dtype-rope, else the main model's")
    decide("draft_kv_cache", "layers", .integer(Int64(drafts.layerCount)), "num_nextn_predict_layers")
  }

  private mutating func decideScales(_ request: KVScaleRequest, _ found: KVScaleSet?) {
    let reason =
      switch request.source {
      case .automatic: "auto: the checkpoint's tensors, else kv_scales.json beside them"
      case .checkpoint: "asked for: the checkpoint's tensors"
      case .none: "asked for: no scales"
      case .file: "asked for: a file"
      }
    decide("kv_scales", "source", found.map { .string($0.source) } ?? .null, reason)
    if let found {
      let convention = found.convention ?? request.convention
      decide(
        "kv_scales", "convention", convention.map { .string($0.rawValue) } ?? .null,
        found.convention == nil && convention != nil ? "--kv-scale-convention" : found.conventionReason)
      decide(
        "kv_scales", "headroom", .number(Double(found.headroom)), "room beyond what calibration saw, as the source says"
      )
    }
    for decision in scales.decisions + draftScales {
      let found = decision.found.map { "found \($0), " } ?? ""
      decide(
        "kv_scales", "layer_\(decision.layer)_\(decision.side.rawValue)", .number(Double(decision.decodeScale)),
        found + decision.action.reason)
    }
  }

  private mutating func decideAttention(_ choice: AttentionChoice) {
    for (phase, name, access) in [
      ("prefill", choice.prefill, choice.prefillAccess), ("decode", choice.decode, choice.decodeAccess),
    ] {
      let reason = choice.reasons.first { $0.hasPrefix("\(phase) on \(name)") } ?? ""
      decide("attention", phase, .string(name), String(reason.dropFirst("\(phase) on \(name): ".count)))
      decide(
        "attention", "\(phase)_access", .string(access.map(\.description).joined(separator: "/")),
        model.kvGeometry.isMLA ? "latent/rotary key" : "keys/values")
    }
  }

  private mutating func decideEngine(_ configuration: EngineConfiguration) {
    decide("engine", "device", .string("\(AttentionRequest.device)"), "the CPU at its best instruction set")
    decide(
      "engine", "threads", .integer(Int64(configuration.threadCount ?? WorkerPool.availableProcessorCount)),
      configuration.threadCount == nil ? "one per processor" : "--threads")
    decide(
      "engine", "chunked_prefill_size", .integer(Int64(configuration.chunkedPrefillSize)), "--chunked-prefill-size")
    decide(
      "engine", "max_running_requests", .integer(Int64(configuration.maxRunningRequests)), "--max-running-requests")
    decide("engine", "schedule_policy", .string(configuration.schedulingPolicy.rawValue), "--schedule-policy")
    decide(
      "engine", "speculation", configuration.speculation.map { .string($0.algorithm.rawValue) } ?? .null,
      configuration.speculation == nil ? "no --speculative-algorithm" : "--speculative-algorithm")
    if let speculation = configuration.speculation {
      decide(
        "engine", "draft_tokens", .integer(Int64(speculation.draftTokenCount)), "--speculative-num-draft-tokens")
    }
  }
}
