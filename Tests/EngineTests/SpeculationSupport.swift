import CPUBackend
import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Testing

/// Engines over a small random DeepSeek-V3, with and without drafts.
struct SpeculationRig: Sendable {
  /// One draft layer, or two with "deepseek-v3-mtp2".
  var model = "deepseek-v3"
  var recipes = CacheRecipes(.nvfp4)
  var draftRecipes: CacheRecipes?
  var isFast = true
  /// Spoils every other draft, so that there is something to reject.
  var misguides = false
  var poolTokens = 4096
  var chunk = 64
  var swap = 0
  var sharesPrefixes = true
  var pageSize = 16

  var directory: String { TestModels.directory(model) }

  func model(drafts: Bool) throws -> any LanguageModel {
    let workers = WorkerPool(threadCount: 2)
    let attention: any AttentionBackend = isFast ? FastAttention(workers: workers) : ReferenceAttention()
    return try ModelLoader.load(
      try Checkpoint(directory: directory), operators: CPUOperators(attention: attention, workers: workers),
      drafts: drafts)
  }

  /// - Parameter drafts: nil runs without speculation.
  func engine(drafts: Int?) throws -> Engine {
    let configuration = try EngineConfiguration(
      recipes: recipes, pageSize: pageSize, poolSize: .tokens(poolTokens), chunkedPrefillSize: chunk,
      sharesPrefixes: sharesPrefixes, swapSpace: swap,
      speculation: try drafts.map { try Speculation(draftTokenCount: $0, recipes: draftRecipes) },
      checksIntegrity: true)
    // Handed over: nothing here keeps it.
    nonisolated(unsafe) let loaded = try load(drafts: drafts != nil)
    return try Engine(loaded, configuration: configuration)
  }

  private func load(drafts: Bool) throws -> LoadedModel {
    var model = try model(drafts: drafts)
    if misguides, drafts, let drafting = model as? any DraftingModel { model = MisguidedModel(drafting) }
    return LoadedModel(model: model, fingerprint: "test", arithmetic: "test")
  }

  func requests(sampled: Bool = false, maxTokens: Int = 20) throws -> [Request] {
    try [3, 16, 30, 41].enumerated().map { index, length in
      try request(
        prompt(index, length: length, vocabulary: 128), maxTokens: maxTokens + index,
        seed: sampled ? UInt64(index) : nil)
    }
  }

  /// The requests, of which all but the first now stop at a token in the midst of their answer.
  func stopping(_ requests: [Request]) async throws -> [Request] {
    let answers = try await engine(drafts: nil).outcomes(ofAll: requests)
    return try requests.enumerated().map { index, whole in
      guard index > 0 else { return whole }
      var request = whole
      request.sampling = try SamplingParameters(
        temperature: 0, stopTokenIDs: [answers[index].tokens[8 + index]], maxTokens: answers[index].tokens.count)
      return request
    }
  }

  /// The pages of a request's tokens, all but the last, as they lie in the pools: rows without a token included.
  func stored(_ request: Request, _ outcome: Outcome, in engine: Engine) async throws -> [UInt8]? {
    guard case .tokens(let prompt) = request.prompt else { return nil }
    return try await engine.pageContents(of: prompt + outcome.tokens.dropLast())
  }

  /// The same from a run in one step that knows of no drafts, no engine and no pages but its own: what a cache must hold.
  func expected(_ request: Request, _ outcome: Outcome) throws -> [UInt8]? {
    guard case .tokens(let prompt) = request.prompt else { return nil }
    let tokens = prompt + outcome.tokens.dropLast()
    let model = try #require(try model(drafts: true) as? any DraftingModel)
    let pageCount = (tokens.count + pageSize - 1) / pageSize
    func pool(_ recipes: CacheRecipes, layers: Int) throws -> PagePool {
      try PagePool(
        layout: try model.cacheLayout(recipes, pageSize: pageSize), layerCount: layers, pageCount: pageCount,
        scales: Array(repeating: .one, count: layers))
    }
    let main = try pool(recipes, layers: model.layerCount)
    let own = try pool(draftRecipes ?? recipes, layers: model.draftLayerCount)
    var sequence = DraftedSequence(model, pool: own)
    var batch = StepBatch()
    batch.append(tokens: tokens, start: 0, pages: 0..<Int32(pageCount), logits: .none)
    try sequence.forward(batch, pool: main, logits: UnsafeMutableBufferPointer(start: nil, count: 0))
    return (0..<pageCount).flatMap { page in Array(main.bytes(ofPage: page)) + Array(own.bytes(ofPage: page)) }
  }
}

/// Spoils every other draft.
final class MisguidedModel: DraftingModel {
  let model: any DraftingModel
  private var calls = 0

  init(_ model: any DraftingModel) { self.model = model }

  var vocabularySize: Int { model.vocabularySize }
  var layerCount: Int { model.layerCount }
  var contextLimit: Int { model.contextLimit }
  var hiddenSize: Int { model.hiddenSize }
  var draftLayerCount: Int { model.draftLayerCount }

  func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    try model.cacheLayout(recipes, pageSize: pageSize)
  }

  func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    try model.forward(batch, pool: pool, logits: logits)
  }

  func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    try model.forward(batch, pool: pool, logits: logits, hidden: hidden)
  }

  func draft(
    _ batch: StepBatch, layer: Int, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    try model.draft(batch, layer: layer, pool: pool, previousHidden: previousHidden, logits: logits, hidden: hidden)
    guard !logits.isEmpty else { return }
    calls += 1
    if calls % 2 == 0 { for index in logits.indices { logits[index] = -logits[index] } }
  }
}
