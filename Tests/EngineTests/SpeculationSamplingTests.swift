import Engine
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Sampled answers keep the target distribution.
@Suite struct SpeculationSamplingTests {
  /// Sampled pairs of tokens follow the model's distribution, not the drafts': chi-square over all transitions of a chain whose
  /// draft layer believes in other odds.
  @Test(arguments: [nil, 1, 3])
  func keepsTheDistribution(drafts: Int?) async throws {
    let engine = try Engine(
      LoadedModel(model: MarkovModel(), fingerprint: "markov", arithmetic: "fake"),
      configuration: try EngineConfiguration(
        pageSize: 16, poolSize: .tokens(4096), speculation: try drafts.map { try Speculation(draftTokenCount: $0) }))
    let size = MarkovModel.size
    var counts = [Double](repeating: 0, count: size * size)
    for seed in 0..<40 {
      let tokens = try await engine.outcome(of: request([0], maxTokens: 200, seed: UInt64(seed))).tokens
      for (before, after) in zip([0] + tokens, tokens) { counts[Int(before) * size + Int(after)] += 1 }
    }
    var statistic = 0.0
    for before in 0..<size {
      let row = before * size..<(before + 1) * size
      let total = counts[row].reduce(0, +)
      for (count, probability) in zip(counts[row], MarkovModel.probabilities(after: before)) {
        statistic += (count - total * probability) * (count - total * probability) / (total * probability)
      }
    }
    // 30 degrees of freedom: 1 in 1000 lies above 59.7.
    #expect(statistic < 59.7)
    let speculation = engine.statistics().speculation
    #expect(drafts == nil || (0.03...0.4).contains(speculation.acceptanceRate))
  }
}

/// A chain: the next token depends on the last one alone.
private final class MarkovModel: DraftingModel {
  static let size = 6
  let vocabularySize = size
  let layerCount = 1
  let contextLimit = 4096
  let hiddenSize = 1
  let draftLayerCount = 1

  private static func logit(_ before: Int, _ after: Int) -> Float { Float((before * 5 + after * 3) % 7) * 0.35 }

  static func probabilities(after before: Int) -> [Double] {
    let weights = (0..<size).map { exp(Double(logit(before, $0))) }
    let total = weights.reduce(0, +)
    return weights.map { $0 / total }
  }

  func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    .mha(try MHALayout(kvHeadCount: 1, headDimension: 32, pageSize: pageSize, recipeK: .bf16, recipeV: .bf16))
  }

  private func fill(_ batch: StepBatch, _ logits: UnsafeMutableBufferPointer<Float>, shift: Int) {
    for (index, row) in batch.logitsRows.enumerated() {
      let token = Int(batch.tokenIDs[Int(row)])
      for after in 0..<Self.size { logits[index * Self.size + after] = Self.logit(token, after + shift) }
    }
  }

  func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    fill(batch, logits, shift: 0)
  }

  func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    fill(batch, logits, shift: 0)
  }

  func draft(
    _ batch: StepBatch, layer: Int, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden: UnsafeMutableBufferPointer<Float>
  ) throws {
    if !logits.isEmpty { fill(batch, logits, shift: 3) }
  }
}
