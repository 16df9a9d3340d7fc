import Engine
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Testing

/// Which layer makes which draft, from which hidden states.
@Suite struct DraftChainTests {
  /// A model that counts, and whose draft layers count along only if they get what belongs to them. So every draft is accepted, with
  /// fewer, as many and more drafts than layers, in chunks, in a batch, and going on from a cached prefix.
  @Test(arguments: [1, 2, 3], [1, 2, 3, 5]) func everyLayerGetsItsOwn(layers: Int, drafts: Int) async throws {
    let engine = try Engine(
      LoadedModel(model: CountingModel(draftLayerCount: layers), fingerprint: "counting", arithmetic: "fake"),
      configuration: try EngineConfiguration(
        pageSize: 16, poolSize: .tokens(4096), chunkedPrefillSize: 7,
        speculation: try Speculation(draftTokenCount: drafts), checksIntegrity: true))
    func check(_ lengths: [Int]) async throws {
      let requests = try lengths.map { try request((0..<$0).map { Int32($0) }, maxTokens: 20 + $0) }
      for (length, outcome) in zip(lengths, try await engine.outcomes(ofAll: requests)) {
        #expect(outcome.tokens == (length..<2 * length + 20).map { Int32($0) % 128 })
      }
    }
    try await check([1, 2, 3, 18, 33])
    try await check([37])
    let speculation = engine.statistics().speculation
    #expect(speculation.draftTokens > 100)
    #expect(speculation.acceptedTokens == speculation.draftTokens)
    #expect(engine.statistics().cachedPromptTokens > 0)
  }
}

/// After token t comes t + 1. The hidden state of position p is [level, p], level 0 for the main model and 1 + k for draft layer k.
private final class CountingModel: DraftingModel {
  let vocabularySize = 128
  let layerCount = 1
  let contextLimit = 4096
  let hiddenSize = 2
  let draftLayerCount: Int
  /// Of each draft layer, the slots that hold a row.
  private var stored: [Set<Int32>]

  init(draftLayerCount: Int) {
    self.draftLayerCount = draftLayerCount
    stored = Array(repeating: [], count: draftLayerCount)
  }

  func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    .mha(try MHALayout(kvHeadCount: 1, headDimension: 32, pageSize: pageSize, recipeK: .bf16, recipeV: .bf16))
  }

  private func fill(_ logits: UnsafeMutableBufferPointer<Float>, _ batch: StepBatch, knows: (Int) -> Bool) {
    for (index, row) in batch.logitsRows.enumerated() {
      let next = (Int(batch.tokenIDs[Int(row)]) + (knows(Int(row)) ? 1 : 2)) % vocabularySize
      for token in 0..<vocabularySize { logits[index * vocabularySize + token] = token == next ? 9 : 0 }
    }
  }

  func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    fill(logits, batch) { _ in true }
  }

  func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    fill(logits, batch) { _ in true }
    for row in 0..<batch.tokenCount {
      (hidden[2 * row], hidden[2 * row + 1]) = (0, Float(batch.positions[row]))
    }
  }

  func draft(
    _ batch: StepBatch, layer: Int, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    for row in 0..<batch.tokenCount { stored[layer].insert(slot(Int(batch.positions[row]), ofRow: row, batch)) }
    // The last layer also goes on from its own states, in drafts beyond the number of layers.
    func knows(_ row: Int) -> Bool {
      let position = Int(batch.positions[row])
      let level = previousHidden[2 * row]
      guard position > 0 else { return level == 0 && previousHidden[2 * row + 1] == 0 }
      return previousHidden[2 * row + 1] == Float(position - 1)
        && (level == Float(layer)
          || logits.isEmpty == false && layer == draftLayerCount - 1 && level == Float(layer + 1))
        && (0...position).allSatisfy { stored[layer].contains(slot($0, ofRow: row, batch)) }
    }
    if !logits.isEmpty { fill(logits, batch, knows: knows) }
    guard !hidden.isEmpty else { return }
    for row in 0..<batch.tokenCount {
      (hidden[2 * row], hidden[2 * row + 1]) = (knows(row) ? Float(layer + 1) : -1, Float(batch.positions[row]))
    }
  }

  private func slot(_ position: Int, ofRow row: Int, _ batch: StepBatch) -> Int32 {
    let first = Int(batch.pageTableOffsets[batch.sequence(ofRow: row)])
    return batch.pageTables[first + position / 16] * 16 + Int32(position % 16)
  }
}
