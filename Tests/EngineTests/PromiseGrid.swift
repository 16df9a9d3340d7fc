import CPUBackend
import Engine
import KVQuantization
import ModelFamilies
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Checkpoints for tests: the two that ship, and small random ones that unoptimised kernels are fast enough for.
enum TestModels {
  /// Grouped-query attention; latent attention with experts.
  static let shipped = ["tiny-qwen3", "tiny-deepseek-v3"]
  /// The same kinds of models.
  static let small = ["qwen3", "deepseek-v2-lite"]

  static func directory(_ model: String) -> String {
    shipped.contains(model)
      ? Repository.model(model) : "\(Repository.resources(of: "ModelFamiliesTests"))/\(model)"
  }
}

/// A model, an attention backend and a cache for which the promises are tested.
struct PromiseCell: Sendable, CustomTestStringConvertible {
  let model: String
  let backend: String
  let recipes: CacheRecipes
  /// With a context that the kernels cut into chunks, and share among the workers.
  let isLong: Bool

  var testDescription: String {
    "\(model), \(backend), \(recipes.key.name)/\((isLatent ? recipes.rope : recipes.value).name)\(isLong ? ", long" : "")"
  }

  private var isLatent: Bool { model.contains("deepseek") }

  private static var isOptimised: Bool {
    #if DEBUG
      false
    #else
      true
    #endif
  }

  /// Debug builds take the small models: every recipe on every backend, and pairs on the fast one. Optimised builds, and
  /// `NIBBLE_FULL_GRID=1`, take the shipped models too, and pairs everywhere.
  static let all: [PromiseCell] = {
    let isFull = isOptimised || getenv("NIBBLE_FULL_GRID") != nil
    return (TestModels.small + (isFull ? TestModels.shipped : [])).flatMap { model in
      ["cpu", "reference"].flatMap { backend in
        let caches =
          KVRecipe.allCases.map { CacheRecipes($0) }
          + (isFull || backend == "cpu" ? pairs(isLatent: model.contains("deepseek")) : [])
        return caches.map { recipes in
          let isLong = backend == "cpu" && TestModels.shipped.contains(model)
          return PromiseCell(model: model, backend: backend, recipes: recipes, isLong: isLong)
        }
      }
    }
  }()

  /// Two recipes: of keys and values, or of the latent and the rotary key.
  private static func pairs(isLatent: Bool) -> [CacheRecipes] {
    let pairs: [(KVRecipe, KVRecipe)] = [(.fp8E4M3, .nvfp4), (.nvfp4, .fp8E4M3), (.bf16, .mxfp4)]
    return pairs.map { isLatent ? CacheRecipes(key: $0, value: $0, rope: $1) : CacheRecipes(key: $0, value: $1) }
  }

  func engine(
    poolTokens: Int = 8192, chunk: Int = 256, threads: Int = 2, swap: Int = 0, sharesPrefixes: Bool = true
  ) throws -> Engine {
    let configuration = try EngineConfiguration(
      recipes: recipes, pageSize: 16, poolSize: .tokens(poolTokens), chunkedPrefillSize: chunk,
      sharesPrefixes: sharesPrefixes, swapSpace: swap, threadCount: threads, attentionBackend: backend,
      checksIntegrity: true)
    let runtime = try ModelRuntime(
      directory: TestModels.directory(model),
      attention: AttentionRequest(backend: backend, recipes: recipes, pageSize: 16), threadCount: threads)
    guard TestModels.shipped.contains(model) else {
      let loaded = LoadedModel(model: runtime.model, fingerprint: model, arithmetic: backend)
      return try Engine(loaded, configuration: configuration)
    }
    return try Engine(LoadedModel(runtime, configuration: configuration), configuration: configuration)
  }

  // MARK: Requests

  private var vocabulary: Int32 { TestModels.shipped.contains(model) ? 4096 : 128 }

  private func text(_ seed: Int, length: Int) -> [Int32] { prompt(seed, length: length, vocabulary: vocabulary) }

  /// Greedy and sampled ones; the last is so long that its context is cut, where that is wanted.
  func probes() throws -> [Request] {
    let lengths = [23, 61, 45, 19] + (isLong ? [isLatent ? 1060 : 560] : [])
    return try lengths.enumerated().map { index, length in
      let seed: UInt64? = index % 3 == 0 ? nil : UInt64(index)
      let sampling = try SamplingParameters(
        temperature: seed == nil ? 0 : 0.8, topK: index == 1 ? 50 : 0, topP: index == 1 ? 0.95 : 1,
        repetitionPenalty: 1.1, seed: seed, ignoreEOS: true, maxTokens: 10)
      var request = Request(tokens: text(index + 1, length: length), sampling: sampling)
      request.digestsLogits = true
      return request
    }
  }

  /// One prompt with several sampled completions.
  func forked() throws -> Request {
    let sampling = try SamplingParameters(temperature: 1, seed: 7, ignoreEOS: true, maxTokens: 10)
    var request = Request(tokens: text(6, length: 45), sampling: sampling)
    request.choiceCount = 5
    request.digestsLogits = true
    return request
  }

  /// Requests that have nothing to do with the probes.
  func others(_ count: Int) throws -> [Request] {
    try (0..<count).map { try request(text(100 + $0, length: 1 + $0 % 5 * 9), maxTokens: 4 + $0 % 7, seed: 9) }
  }

  /// What each probe gives by itself: one thread, one chunk, nothing cached.
  func quietOutcomes() async throws -> [Outcome] {
    let quiet = try engine(chunk: 4096, threads: 1, sharesPrefixes: false)
    var outcomes: [Outcome] = []
    for probe in try probes() { outcomes.append(try await quiet.outcome(of: probe)) }
    await quiet.shutDown()
    return outcomes
  }
}

extension Request {
  var promptTokens: [Int32] {
    if case .tokens(let tokens) = prompt { tokens } else { [] }
  }
}
