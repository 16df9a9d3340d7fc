import CSIMD
import KVQuantization
import Operators
import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Attention as a textbook writes it, the yardstick of every fast kernel: decode each row, dot products, softmax over all scores,
/// weighted sum; sums in double precision. One thread, no tiles.
public final class ReferenceAttention: AttentionBackend {
  public let name = "reference"

  public init() {}

  public func attend(_ call: AttentionCall, batch: StepBatch, pool: PagePool) {
    switch pool.layout {
    case .mha(let layout): attend(call, batch: batch, pool: pool, layout: layout)
    case .mla(let layout): attendLatent(call, batch: batch, pool: pool, layout: layout)
    }
  }

  private func attend(_ call: AttentionCall, batch: StepBatch, pool: PagePool, layout: MHALayout) {
    let dimension = layout.headDimension
    let group = call.queryHeadCount / layout.kvHeadCount
    let regions = layout.regions
    forEachSequence(batch) { rows, context, pages in
      for head in 0..<layout.kvHeadCount {
        let keys = RowReader(pool: pool, layer: call.layer, region: regions[2 * head]).rows(0..<context, pages: pages)
        let values = RowReader(pool: pool, layer: call.layer, region: regions[2 * head + 1])
          .rows(0..<context, pages: pages)
        for row in rows {
          let length = Int(batch.positions[row]) + 1
          for query in head * group..<(head + 1) * group {
            weightedSum(
              query: call.queries + row * call.queryStride + query * dimension,
              keys: keys, keyDimension: dimension, values: values, valueDimension: dimension, length: length,
              scale: call.softmaxScale, output: call.output + row * call.outputStride + query * dimension)
          }
        }
      }
    }
  }

  /// MLA in absorbed form: the key is (latent, rotary key), the value is the latent (arXiv 2405.04434, section 2.1.2).
  private func attendLatent(_ call: AttentionCall, batch: StepBatch, pool: PagePool, layout: MLALayout) {
    let regions = layout.regions
    let (latent, rope) = (layout.latentDimension, layout.ropeDimension)
    forEachSequence(batch) { rows, context, pages in
      let latents = RowReader(pool: pool, layer: call.layer, region: regions[0]).rows(0..<context, pages: pages)
      let ropes = RowReader(pool: pool, layer: call.layer, region: regions[1]).rows(0..<context, pages: pages)
      var keys: [Float] = []
      keys.reserveCapacity(context * (latent + rope))
      for token in 0..<context {
        keys += latents[token * latent..<(token + 1) * latent]
        keys += ropes[token * rope..<(token + 1) * rope]
      }
      for row in rows {
        for query in 0..<call.queryHeadCount {
          weightedSum(
            query: call.queries + row * call.queryStride + query * (latent + rope),
            keys: keys, keyDimension: latent + rope, values: latents, valueDimension: latent,
            length: Int(batch.positions[row]) + 1, scale: call.softmaxScale,
            output: call.output + row * call.outputStride + query * latent)
        }
      }
    }
  }

  /// Calls `body` with each sequence's rows of the step, its context length and its pages.
  private func forEachSequence(_ batch: StepBatch, _ body: (Range<Int>, Int, ArraySlice<Int32>) -> Void) {
    for sequence in 0..<batch.sequenceCount {
      body(
        Int(batch.queryOffsets[sequence])..<Int(batch.queryOffsets[sequence + 1]),
        Int(batch.contextLengths[sequence]),
        batch.pageTables[
          Int(batch.pageTableOffsets[sequence])..<Int(batch.pageTableOffsets[sequence + 1])])
    }
  }

  private func weightedSum(
    query: UnsafePointer<Float>, keys: [Float], keyDimension: Int, values: [Float], valueDimension: Int, length: Int,
    scale: Float, output: UnsafeMutablePointer<Float>
  ) {
    var scores = [Double](repeating: 0, count: length)
    for token in 0..<length {
      var sum = 0.0
      for index in 0..<keyDimension { sum += Double(query[index]) * Double(keys[token * keyDimension + index]) }
      scores[token] = sum * Double(scale)
    }
    let maximum = scores.max() ?? 0
    var total = 0.0
    for token in 0..<length {
      scores[token] = exp(scores[token] - maximum)
      total += scores[token]
    }
    var sums = [Double](repeating: 0, count: valueDimension)
    for token in 0..<length {
      for index in 0..<valueDimension { sums[index] += scores[token] * Double(values[token * valueDimension + index]) }
    }
    for index in 0..<valueDimension { output[index] = Float(sums[index] / total) }
  }
}

/// Reads stored rows of one region back as float32.
public struct RowReader {
  let pool: PagePool
  let layer: Int
  let region: CacheRegion

  public init(pool: PagePool, layer: Int, region: CacheRegion) {
    self.pool = pool
    self.layer = layer
    self.region = region
  }

  /// The decoded rows of positions, [count, dimension], of the sequence that owns `pages`.
  public func rows(_ positions: Range<Int>, pages: ArraySlice<Int32>) -> [Float] {
    let recipe = region.recipe
    let decodeScale = pool.decodeScale(layer: layer, kind: region.kind)
    var codes = [UInt8](repeating: 0, count: recipe.codeBytes(dimension: region.dimension))
    var blockScales = [UInt8](repeating: 0, count: max(1, recipe.scaleBytes(dimension: region.dimension)))
    var result = [Float](repeating: 0, count: positions.count * region.dimension)
    result.withUnsafeMutableBufferPointer { result in
      guard let start = result.baseAddress else { return }
      for (index, position) in positions.enumerated() {
        let page = Int(pages[pages.startIndex + position / pool.layout.pageSize])
        var source = nb_region(region, record: pool.record(page: page, layer: layer))
        nb_region_gather_row(&source, Int32(position % pool.layout.pageSize), &codes, &blockScales)
        nb_decode_row(
          NB_LEVEL_PORTABLE, nb_recipe(UInt32(recipe.rawValue)), codes, blockScales, Int32(region.dimension),
          decodeScale,
          start + index * region.dimension)
      }
    }
    return result
  }
}
