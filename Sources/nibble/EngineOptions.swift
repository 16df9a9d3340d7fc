import ArgumentParser
import Engine
import KVQuantization
import ModelFamilies
import PagedCache

/// How large the KV cache is and how steps are cut; the same flags wherever an engine runs.
struct EngineOptions: ParsableArguments {
  @Option(help: "Tokens that the KV cache holds.")
  var maxTotalTokens: Int?

  @Option(help: "Memory of the KV cache, such as 512MiB or 4GiB.")
  var kvCacheMemory: String?

  @Option(help: "Share of the available memory that the KV cache takes.")
  var memFractionStatic: Double?

  @Option(help: "Prompt tokens a step.")
  var chunkedPrefillSize = 512

  @Option(help: "Requests a step.")
  var maxRunningRequests = 64

  @Option(help: "Tokens of prompt and answer together (default: the model's context).")
  var contextLength: Int?

  @Option(help: "Requests that may wait before more are refused.")
  var maxQueuedRequests = 8192

  @Option(
    help: "Which waiting request starts first: \(SchedulingPolicy.allCases.map(\.rawValue).joined(separator: ", "))."
  )
  var schedulePolicy = SchedulingPolicy.fcfs

  @Flag(help: "Forget a request's keys and values when it ends.")
  var disableRadixCache = false

  @Option(help: "Host memory for preempted requests, such as 1GiB; without it they are computed again.")
  var swapSpace: String?

  @Option(help: "Guess tokens ahead and check several in one step: mtp (the model's layer for multi-token prediction).")
  var speculativeAlgorithm: Speculation.Algorithm?

  @Option(help: "Tokens guessed before each check (default: 1).")
  var speculativeNumDraftTokens: Int?

  @Option(help: "Recipe of the draft layers' pages (default: the main model's).")
  var speculativeDraftKvCacheDtype: String?

  @Option(
    help: "Recipe of the draft layers' rotary keys (default: the main model's, or bf16 beside a recipe of their own).")
  var speculativeDraftKvCacheDtypeRope: String?

  func validate() throws {
    let needing = [
      ("num-draft-tokens", speculativeNumDraftTokens != nil),
      ("draft-kv-cache-dtype", speculativeDraftKvCacheDtype != nil),
      ("draft-kv-cache-dtype-rope", speculativeDraftKvCacheDtypeRope != nil),
    ]
    if speculativeAlgorithm == nil, let (option, _) = needing.first(where: \.1) {
      throw ValidationError("--speculative-\(option) needs --speculative-algorithm mtp")
    }
    let sizes = [maxTotalTokens != nil, kvCacheMemory != nil, memFractionStatic != nil].filter { $0 }
    guard sizes.count <= 1 else {
      throw ValidationError(
        "expected one of --max-total-tokens, --kv-cache-memory and --mem-fraction-static, found \(sizes.count)")
    }
  }

  /// - Throws: `EngineError.invalidConfiguration`, `KVQuantizationError.unknownRecipe`.
  func configuration(model: ModelOptions, cache: CacheOptions) throws -> EngineConfiguration {
    let size: PoolSize =
      if let maxTotalTokens {
        .tokens(maxTotalTokens)
      } else if let kvCacheMemory {
        .memory(try MemorySize(kvCacheMemory).bytes)
      } else if let memFractionStatic { .fraction(memFractionStatic) } else { .automatic }
    var configuration = try EngineConfiguration(
      recipes: try cache.recipes(), pageSize: cache.pageSize, poolSize: size, chunkedPrefillSize: chunkedPrefillSize,
      maxRunningRequests: maxRunningRequests, maxQueuedRequests: maxQueuedRequests, schedulingPolicy: schedulePolicy,
      sharesPrefixes: !disableRadixCache, swapSpace: try swapSpace.map { try MemorySize($0).bytes } ?? 0,
      contextLength: contextLength, threadCount: model.threads, attentionBackend: model.attentionBackend,
      speculation: try speculation(main: try cache.recipes()))
    configuration.kvScales = try cache.scaleOptions.request()
    configuration.attentionPrecision = model.attentionPrecision
    return configuration
  }

  private func speculation(main: CacheRecipes) throws -> Speculation? {
    try speculativeAlgorithm.map {
      let recipe = try speculativeDraftKvCacheDtype.map(KVRecipe.named)
      let rope = try speculativeDraftKvCacheDtypeRope.map(KVRecipe.named)
      var recipes = recipe.map { CacheRecipes($0) } ?? main
      if let rope { recipes.rope = rope }
      return try Speculation(algorithm: $0, draftTokenCount: speculativeNumDraftTokens ?? 1, recipes: recipes)
    }
  }
}

extension SchedulingPolicy: ExpressibleByArgument {}
extension Speculation.Algorithm: ExpressibleByArgument {}
