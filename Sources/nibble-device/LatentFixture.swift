import CPUBackend
import CSIMD
import CUDABackend
import CUDASupport
import KVQuantization
import Operators
import PagedCache

/// A cache of latents with random contents and sequences in it, on the CPU: what both sides of a comparison start from.
struct LatentFixture {
  let pool: PagePool
  let layout: MLALayout
  /// [B]
  let lengths: [Int]
  /// Page ids, sequence after sequence.
  let pageTables: [[Int32]]

  /// - Parameter rowScale: standard deviation of the values: extremes go through it.
  init(
    layout: MLALayout, lengths: [Int], scales: DecodeScales, sharedPages: Int = 0, seed: UInt64, workers: WorkerPool,
    rowScale: Float = 1
  ) throws {
    self.layout = layout
    self.lengths = lengths
    let pageSize = layout.pageSize
    let (tables, total) = CacheFixture.scatteredPages(lengths, pageSize: pageSize, sharedPages: sharedPages, seed: seed)
    pageTables = tables
    pool = try PagePool(layout: .mla(layout), layerCount: 1, pageCount: total, scales: [scales])
    // Every page is filled to its end: rows past a sequence's end must not matter, whatever they hold.
    let pool = pool
    workers.run(total) { page, _ in
      var random = RandomNumbers(seed: seed &+ UInt64(page) &* 0x1234_5679)
      for region in pool.regions {
        var target = nb_region(region, record: pool.record(page: page, layer: 0))
        for token in 0..<pageSize {
          nb_region_store(
            nb_level_active(), &target, Int32(token), random.normals(region.dimension, scale: rowScale),
            pool.decodeScale(layer: 0, kind: region.kind), nil)
        }
      }
    }
  }

  /// Other requests over pages that are there already.
  init(pool: PagePool, layout: MLALayout, lengths: [Int], pageTables: [[Int32]]) {
    self.pool = pool
    self.layout = layout
    self.lengths = lengths
    self.pageTables = pageTables
  }

  /// Values of a query, and of a key.
  var keyDimension: Int { layout.latentDimension + layout.ropeDimension }

  /// Attention in double precision over the stored bytes, [B * queryLength, Hq, 512].
  func reference(
    queries: [Float], queryHeadCount: Int, queryLength: Int = 1, softmaxScale: Float, workers: WorkerPool
  ) -> [Float] {
    let (queryWidth, outputWidth) = (queryHeadCount * keyDimension, queryHeadCount * layout.latentDimension)
    var output = [Float](repeating: .nan, count: lengths.count * queryLength * outputWidth)
    // Heads are independent: slices of them keep all cores busy.
    let slice = queryHeadCount % 8 == 0 ? queryHeadCount / 8 : queryHeadCount
    let slices = queryHeadCount / slice
    output.withUnsafeMutableBufferPointer { output in
      queries.withUnsafeBufferPointer { queries in
        guard let from = queries.baseAddress, let to = output.baseAddress else { return }
        let result = UncheckedPointers(queries: from, output: to)
        workers.run(lengths.count * slices) { task, _ in
          let (sequence, first) = (task / slices, task % slices * slice)
          var step = StepBatch()
          step.append(
            tokens: [Int32](repeating: 0, count: queryLength), start: lengths[sequence] - queryLength,
            pages: pageTables[sequence], logits: .none)
          let row = sequence * queryLength
          ReferenceAttention().attend(
            AttentionCall(
              queries: result.queries + row * queryWidth + first * keyDimension, queryStride: queryWidth,
              output: result.output + row * outputWidth + first * layout.latentDimension, outputStride: outputWidth,
              queryHeadCount: slice, layer: 0, softmaxScale: softmaxScale),
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

  /// Every page of the CPU's pool, converted to the kernels' byte order.
  func records() -> [[UInt8]] {
    let converter = LatentRecordConverter(layout: layout)
    return (0..<pool.pageCount).map { page in
      var record = [UInt8](repeating: 0, count: pool.recordBytes)
      var codes = [UInt8](repeating: 0, count: 4 * layout.latentDimension)
      var scales = codes
      record.withUnsafeMutableBufferPointer { record in
        guard let target = record.baseAddress else { return }
        for region in pool.regions {
          var source = nb_region(region, record: pool.record(page: page, layer: 0))
          for token in 0..<layout.pageSize {
            nb_region_gather_row(&source, Int32(token), &codes, &scales)
            converter.scatter(
              codes: codes, scales: scales, isLatent: region.kind == .latent, token: token, into: target)
          }
        }
      }
      return record
    }
  }

  /// The same cache on the GPU, page for page.
  func upload(to bench: DeviceBench) throws(CUDAError) -> DevicePagePool {
    let pool = try DevicePagePool(
      bench.context, layout: .mla(layout), layerCount: 1, pageCount: self.pool.pageCount, scales: self.pool.scales)
    for (page, record) in records().enumerated() { try pool.upload(record, toPage: page, on: bench.stream) }
    return pool
  }
}
