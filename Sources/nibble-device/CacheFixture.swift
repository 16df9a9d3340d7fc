import CPUBackend
import CSIMD
import CUDABackend
import CUDASupport
import KVQuantization
import Operators
import PagedCache

/// A cache with random contents and sequences in it, on the CPU: what both sides of a comparison start from.
struct CacheFixture {
  let pool: PagePool
  let layout: MHALayout
  /// [B]
  let lengths: [Int]
  /// Page ids, sequence after sequence.
  let pageTables: [[Int32]]

  /// - Parameters:
  ///   - sharedPages: pages at the start that every sequence shares with the first.
  ///   - rowScale: standard deviation of the values, per token: extremes go through it.
  init(
    layout: MHALayout, lengths: [Int], scales: DecodeScales, sharedPages: Int = 0, seed: UInt64, workers: WorkerPool,
    rowScale: (Int) -> Float = { _ in 1 }
  ) throws {
    self.layout = layout
    self.lengths = lengths
    let pageSize = layout.pageSize
    let (tables, total) = Self.scatteredPages(lengths, pageSize: pageSize, sharedPages: sharedPages, seed: seed)
    pageTables = tables
    pool = try PagePool(layout: .mha(layout), layerCount: 1, pageCount: total, scales: [scales])

    // Every page is filled to its end, the unused ones too: rows past a sequence's end must not matter, whatever they hold.
    let pool = pool
    let regions = layout.regions
    let deviations = (0..<pageSize).map(rowScale)
    workers.run(total) { page, _ in
      var random = RandomNumbers(seed: seed &+ UInt64(page) &* 0x1234_5679)
      for region in regions {
        var target = nb_region(region, record: pool.record(page: page, layer: 0))
        let decodeScale = pool.decodeScale(layer: 0, kind: region.kind)
        for token in 0..<pageSize {
          let row = random.normals(region.dimension, scale: deviations[token])
          nb_region_store(nb_level_active(), &target, Int32(token), row, decodeScale, nil)
        }
      }
    }
  }

  /// Page tables for sequences of these lengths, and how many pages there are: more than are used, in an order that has nothing to do
  /// with the tokens'. The first pages of a sequence are those of the first one, as many as are shared.
  static func scatteredPages(
    _ lengths: [Int], pageSize: Int, sharedPages: Int, seed: UInt64
  ) -> (tables: [[Int32]], total: Int) {
    let counts = lengths.map { ($0 + pageSize - 1) / pageSize }
    let total = counts.reduce(0, +) + 3
    var random = RandomNumbers(seed: seed)
    var free = Array(Int32(0)..<Int32(total)).shuffled(using: &random)
    var tables: [[Int32]] = []
    for count in counts {
      let shared = tables.first.map { Array($0.prefix(min(sharedPages, count))) } ?? []
      tables.append(shared + (shared.count..<count).map { _ in free.removeLast() })
    }
    return (tables, total)
  }

  /// Other requests over pages that are there already.
  init(pool: PagePool, layout: MHALayout, lengths: [Int], pageTables: [[Int32]]) {
    self.pool = pool
    self.layout = layout
    self.lengths = lengths
    self.pageTables = pageTables
  }

  /// Attention in double precision over the stored bytes, [B * queryLength, Hq, D].
  func reference(
    queries: [Float], queryHeadCount: Int, queryLength: Int = 1, softmaxScale: Float, workers: WorkerPool
  ) -> [Float] {
    let rowCount = queryHeadCount * layout.headDimension
    var output = [Float](repeating: .nan, count: queries.count)
    output.withUnsafeMutableBufferPointer { output in
      queries.withUnsafeBufferPointer { queries in
        guard let from = queries.baseAddress, let to = output.baseAddress else { return }
        let result = UncheckedPointers(queries: from, output: to)
        workers.run(lengths.count) { sequence, _ in
          var step = StepBatch()
          step.append(
            tokens: [Int32](repeating: 0, count: queryLength), start: lengths[sequence] - queryLength,
            pages: pageTables[sequence], logits: .none)
          let first = sequence * queryLength * rowCount
          ReferenceAttention().attend(
            AttentionCall(
              queries: result.queries + first, queryStride: rowCount, output: result.output + first,
              outputStride: rowCount, queryHeadCount: queryHeadCount, layer: 0, softmaxScale: softmaxScale),
            batch: step, pool: pool)
        }
      }
    }
    return output
  }

  private struct UncheckedPointers: @unchecked Sendable {
    let queries: UnsafePointer<Float>
    let output: UnsafeMutablePointer<Float>
  }
}

/// ‖found - expected‖ / ‖expected‖ over the whole, and the worst row's; NaN and infinities give infinity.
func relativeError(_ found: [Float], _ expected: [Float], row: Int) -> (all: Double, worstRow: Double) {
  guard found.count == expected.count, !found.isEmpty else { return (.infinity, .infinity) }
  var (difference, norm, worst) = (0.0, 0.0, 0.0)
  for start in stride(from: 0, to: found.count, by: row) {
    var (rowDifference, rowNorm) = (0.0, 0.0)
    for index in start..<min(start + row, found.count) {
      let delta = Double(found[index]) - Double(expected[index])
      rowDifference += delta * delta
      rowNorm += Double(expected[index]) * Double(expected[index])
    }
    difference += rowDifference
    norm += rowNorm
    let ratio = rowNorm == 0 ? (rowDifference == 0 ? 0 : Double.infinity) : (rowDifference / rowNorm).squareRoot()
    worst = ratio.isFinite ? max(worst, ratio) : .infinity
  }
  let all = norm == 0 ? (difference == 0 ? 0 : Double.infinity) : (difference / norm).squareRoot()
  return (all.isFinite ? all : .infinity, worst)
}
