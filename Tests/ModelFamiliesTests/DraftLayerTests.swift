import CPUBackend
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Testing

/// The layers for multi-token prediction.
@Suite struct DraftLayerTests {
  private func load(_ directory: String) throws -> any DraftingModel {
    let model = try ModelLoader.load(
      try Checkpoint(directory: directory),
      operators: CPUOperators(attention: ReferenceAttention(), workers: WorkerPool(threadCount: 2)), drafts: true)
    return try #require(model as? any DraftingModel)
  }

  /// A pool of some layers, with the last of `scales`.
  private func pool(
    _ model: any DraftingModel, _ recipes: CacheRecipes, layers: Int, scales: [DecodeScales]? = nil, tokens: Int
  ) throws -> PagePool {
    try PagePool(
      layout: try model.cacheLayout(recipes, pageSize: 16), layerCount: layers, pageCount: (tokens + 15) / 16,
      scales: scales ?? Array(repeating: .one, count: layers))
  }

  private func batch(_ tokens: ArraySlice<Int32>, start: Int, pool: PagePool) -> StepBatch {
    var batch = StepBatch()
    batch.append(tokens: tokens, start: start, pages: 0..<Int32(pool.pageCount), logits: .all)
    return batch
  }

  /// The main model's hidden states [tokens, hidden size].
  private func hiddenStates(_ model: any DraftingModel, _ tokens: [Int32], pool: PagePool) throws -> [Float] {
    var states = [Float](repeating: 0, count: tokens.count * model.hiddenSize)
    var logits = [Float](repeating: 0, count: tokens.count * model.vocabularySize)
    try logits.withUnsafeMutableBufferPointer { logits in
      try states.withUnsafeMutableBufferPointer { states in
        try model.forward(batch(tokens[...], start: 0, pool: pool), pool: pool, logits: logits, hidden: states)
      }
    }
    return states
  }

  /// Logits [tokens, vocabulary] and hidden states [tokens, hidden size] of a draft layer.
  private func drafts(
    _ model: any DraftingModel, layer: Int = 0, _ tokens: ArraySlice<Int32>, start: Int, previous: [Float],
    pool: PagePool
  ) throws -> (logits: [Float], states: [Float]) {
    var logits = [Float](repeating: 0, count: tokens.count * model.vocabularySize)
    var states = [Float](repeating: 0, count: tokens.count * model.hiddenSize)
    try logits.withUnsafeMutableBufferPointer { logits in
      try states.withUnsafeMutableBufferPointer { states in
        try previous.withUnsafeBufferPointer { previous in
          try model.draft(
            batch(tokens, start: start, pool: pool), layer: layer, pool: pool, previousHidden: previous,
            logits: logits, hidden: states)
        }
      }
    }
    return (logits, states)
  }

  /// Against transformers' decoder layer between the projections, every run and every draft layer.
  @Test(arguments: ["deepseek-v3", "deepseek-v3-mtp2", "tiny-deepseek-v3"])
  func matchesReference(name: String) throws {
    let isShipped = name.hasPrefix("tiny")
    let golden = try GoldenLogits(name).prefix(isShipped && LogitsGoldenTests.isDebug ? 40 : .max)
    let model = try load("\(isShipped ? GoldenLogits.models : GoldenLogits.resources)/\(name)")
    let count = golden.tokens.count
    for (index, run) in golden.runs.enumerated() where !isShipped || index % 3 == 1 {
      #expect(run.drafts.count == model.draftLayerCount)
      let recipes = CacheRecipes(key: run.recipes.first, value: run.recipes.second, rope: run.recipes.second)
      var states = try hiddenStates(
        model, golden.tokens,
        pool: try pool(
          model, recipes, layers: model.layerCount, scales: run.scales.map { Array($0.prefix(model.layerCount)) },
          tokens: count))
      let scales = run.scales.map { Array($0.suffix(model.draftLayerCount)) }
      for (layer, expected) in run.drafts.enumerated() {
        // The reference's layers see no tokens without a predecessor: positions begin with the second, then the third.
        let result = try drafts(
          model, layer: layer, golden.tokens.dropFirst(layer + 1), start: 0,
          previous: states.dropLast(model.hiddenSize),
          pool: try pool(model, recipes, layers: model.draftLayerCount, scales: scales, tokens: count))
        let errors = golden.errors(result.logits, vocabulary: model.vocabularySize, expected: expected)
        #expect(
          errors[errors.count / 2] <= (run.isExact ? 1e-3 : 2e-3), "median of \(name) \(run), draft layer \(layer)")
        #expect(
          errors[errors.count - 1] <= (run.isExact ? 1e-3 : 3e-2), "worst of \(name) \(run), draft layer \(layer)")
        states = result.states
      }
    }
  }

  /// What draft layers store beside the main layers is what they would store by themselves, in any chunks, with recipes of their own.
  @Test(arguments: [KVRecipe.f32, .nvfp4], ["deepseek-v3", "deepseek-v3-mtp2"])
  func followTheMainLayers(recipe: KVRecipe, name: String) throws {
    let model = try load("\(GoldenLogits.resources)/\(name)")
    let tokens = Array(try GoldenLogits(name).tokens.prefix(37))
    func mainPool() throws -> PagePool {
      try pool(model, CacheRecipes(.bf16), layers: model.layerCount, tokens: tokens.count)
    }
    func draftPool() throws -> PagePool {
      try pool(model, CacheRecipes(recipe), layers: model.draftLayerCount, tokens: tokens.count)
    }
    let alone = try draftPool()
    var states = try hiddenStates(model, tokens, pool: try mainPool())
    for layer in 0..<model.draftLayerCount {
      let shifted = Array(repeating: 0, count: model.hiddenSize) + states.dropLast(model.hiddenSize)
      states = try drafts(model, layer: layer, tokens[...], start: 0, previous: shifted, pool: alone).states
    }
    for chunk in [1, 5, tokens.count] {
      let (main, own) = (try mainPool(), try draftPool())
      var sequence = DraftedSequence(model, pool: own)
      var logits = [Float](repeating: 0, count: chunk * model.vocabularySize)
      for start in stride(from: 0, to: tokens.count, by: chunk) {
        let part = tokens[start..<min(start + chunk, tokens.count)]
        try logits.withUnsafeMutableBufferPointer { logits in
          try sequence.forward(batch(part, start: start, pool: main), pool: main, logits: logits)
        }
      }
      #expect(contents(own) == contents(alone), "chunks of \(chunk)")
    }
  }

  private func contents(_ pool: PagePool) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: pool.base, count: pool.byteCount))
  }

  /// The main model's logits don't know of the draft layer.
  @Test func leavesTheLogitsAlone() throws {
    let directory = "\(GoldenLogits.resources)/deepseek-v3"
    let tokens = try GoldenLogits("deepseek-v3").tokens
    let logits = try [loadModel(directory), load(directory)].map { model in
      try TeacherForcing(model, recipes: CacheRecipes(.nvfp4), tokenCount: tokens.count).logits(tokens, chunk: 20)
    }
    #expect(logits[0] == logits[1])
  }

  @Test func erasedRowsAreZero() throws {
    let model = try load("\(GoldenLogits.resources)/deepseek-v3")
    let tokens = try GoldenLogits("deepseek-v3").tokens
    func bytes(_ tokens: [Int32], erasing: Range<Int>) throws -> [UInt8] {
      let pool = try pool(model, CacheRecipes(.nvfp4), layers: model.layerCount, tokens: 48)
      _ = try hiddenStates(model, tokens, pool: pool)
      pool.erase(erasing, pages: 0..<Int32(pool.pageCount))
      return contents(pool)
    }
    #expect(try bytes(Array(tokens.prefix(41)), erasing: 13..<41) == bytes(Array(tokens.prefix(13)), erasing: 0..<0))
  }

  @Test func namesWhatIsMissing() throws {
    let model = try load("\(GoldenLogits.resources)/deepseek-v3")
    let pool = try pool(model, CacheRecipes(.bf16), layers: 1, tokens: 16)
    let none = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
    #expect(throws: DraftError.noDraftLayer(1, count: 1)) {
      try model.draft(
        batch([1], start: 0, pool: pool), layer: 1, pool: pool, previousHidden: UnsafeBufferPointer(none), logits: none,
        hidden: none)
    }
  }
}
