import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache

/// A pool of random rows and a step over it, for timing.
final class BenchAttentionWorkload {
  /// Bytes that the layers of a pool have together at least, so that no cache holds them.
  static let leastBytes = 192 << 20

  let pool: PagePool
  /// Cache bytes that a step reads in one layer.
  let bytesPerLayer: Int
  /// Floating-point operations of attention in one layer: a multiplication and an addition for every value of a key and of a value
  /// that a query head sees.
  let operationsPerLayer: Double
  private let batch: StepBatch
  private let queryHeads: Int
  private let queryWidth: Int
  private let outputWidth: Int
  private let queries: [Float]
  private var output: [Float]

  init(layout: CacheLayout, queryHeads: Int, context: Int, newTokens: Int, batch: Int) throws {
    let stored = context + (newTokens > 1 ? newTokens : 0)
    let pagesPerSequence = (stored + layout.pageSize - 1) / layout.pageSize
    bytesPerLayer = layout.bytesPerToken * stored * batch
    let layerCount = min(64, (Self.leastBytes - 1) / bytesPerLayer + 1)
    pool = try PagePool(
      layout: layout, layerCount: layerCount, pageCount: pagesPerSequence * batch,
      scales: Array(repeating: DecodeScales(key: 0.01, value: 0.01), count: layerCount))
    var random = SystemRandomNumberGenerator()
    let pages = (0..<Int32(pagesPerSequence * batch)).shuffled(using: &random)
    var step = StepBatch()
    for sequence in 0..<batch {
      step.append(
        tokens: [Int32](repeating: 0, count: newTokens), start: stored - newTokens,
        pages: pages[sequence * pagesPerSequence..<(sequence + 1) * pagesPerSequence], logits: .none)
    }
    self.batch = step
    self.queryHeads = queryHeads
    switch layout {
    case .mha(let layout):
      queryWidth = layout.headDimension
      outputWidth = layout.headDimension
    case .mla(let layout):
      queryWidth = layout.latentDimension + layout.ropeDimension
      outputWidth = layout.latentDimension
    }
    queries = Self.normal(newTokens * batch * queryHeads * queryWidth)
    output = [Float](repeating: 0, count: newTokens * batch * queryHeads * outputWidth)
    // Token i of a prefill sees i + 1 of the new tokens.
    let seen = Double(stored - newTokens) + Double(newTokens + 1) / 2
    operationsPerLayer = 2 * seen * Double(newTokens * batch * queryHeads * (queryWidth + outputWidth))
    fill()
  }

  /// Attention of every layer.
  func step(_ attention: FastAttention) {
    queries.withUnsafeBufferPointer { queries in
      output.withUnsafeMutableBufferPointer { output in
        guard let queries = queries.baseAddress, let output = output.baseAddress else { return }
        for layer in 0..<pool.layerCount {
          attention.attend(
            AttentionCall(
              queries: queries, queryStride: queryHeads * queryWidth, output: output,
              outputStride: queryHeads * outputWidth, queryHeadCount: queryHeads, layer: layer,
              softmaxScale: 1 / Float(queryWidth).squareRoot()),
            batch: batch, pool: pool)
        }
      }
    }
  }

  /// Encodes normal rows into every slot. The rows repeat, the memory doesn't.
  private func fill() {
    let level = nb_level_active()
    let width = pool.layout.regions.map(\.dimension).max() ?? 0
    let rows = Self.normal((1021 + width) * 64)
    var next = 0
    rows.withUnsafeBufferPointer { rows in
      guard let rows = rows.baseAddress else { return }
      for page in 0..<pool.pageCount {
        for layer in 0..<pool.layerCount {
          for region in pool.layout.regions {
            var view = nb_region(region, record: pool.record(page: page, layer: layer))
            let scale = pool.decodeScale(layer: layer, kind: region.kind)
            for token in 0..<pool.layout.pageSize {
              nb_region_store(level, &view, Int32(token), rows + next, scale, nil)
              next = (next + 61) % (1021 * 64)
            }
          }
        }
      }
    }
  }

  /// Nearly N(0, 1): sums of four uniform numbers.
  private static func normal(_ count: Int) -> [Float] {
    var random = SystemRandomNumberGenerator()
    return (0..<count).map { _ in
      let bits: UInt64 = random.next()
      let sum = Int32(bits & 0xFFFF) + Int32(bits >> 16 & 0xFFFF) + Int32(bits >> 32 & 0xFFFF) + Int32(bits >> 48)
      return (Float(sum) / 65536 - 2) * 1.7320508
    }
  }
}
