import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache
import TestSupport

/// The levels that this machine can run.
let supportedLevels: [nb_level] = (0...nb_level_supported().rawValue).map { nb_level($0) }

/// A pool with random contents, a step over it, and its queries.
struct AttentionFixture {
  /// What one sequence has stored and what it brings.
  struct Sequence {
    var context: Int
    var new: Int
    /// Pages at its start that it shares with the sequence before.
    var sharedPages = 0
  }

  let layout: CacheLayout
  let pool: PagePool
  let batch: StepBatch
  let queryHeads: Int
  let queryWidth: Int
  let outputWidth: Int
  let queries: [Float]
  let softmaxScale: Float

  /// Every level, and both precisions where they may differ.
  static let arithmetics = supportedLevels.flatMap { level in
    AttentionPrecision.allCases
      .filter { $0 == .full || AttentionPrecision.matters(at: level, key: .nvfp4, value: .nvfp4) }.map { (level, $0) }
  }

  init(
    layout: CacheLayout, queryHeads: Int, sequences: [Sequence],
    scales: DecodeScales = DecodeScales(key: 0.01, value: 0.02),
    queryScale: Float = 1, keyScale: Float = 1, valueScale: Float = 1, seed: UInt64 = 1
  ) throws {
    var random = SplitMix(seed: seed)
    self.layout = layout
    self.queryHeads = queryHeads
    let pageSize = layout.pageSize
    // Page ids are dealt in random order; pages past a context exist and hold rubbish.
    var tables: [[Int32]] = []
    let wanted = sequences.map { ($0.context + pageSize - 1) / pageSize }
    let pageCount = wanted.reduce(0, +) + 2
    var free = Array(0..<Int32(pageCount))
    for index in free.indices { free.swapAt(index, index + Int(random.next() % UInt64(free.count - index))) }
    for (index, sequence) in sequences.enumerated() {
      var table: [Int32] = index > 0 ? Array(tables[index - 1].prefix(sequence.sharedPages)) : []
      while table.count < wanted[index] { table.append(free.removeLast()) }
      tables.append(table)
    }
    pool = try PagePool(
      layout: layout, layerCount: 2, pageCount: pageCount, scales: [.one, scales])
    for page in 0..<pageCount {
      for region in layout.regions {
        var view = nb_region(region, record: pool.record(page: page, layer: 1))
        let scale = region.kind == .value ? valueScale : keyScale
        for token in 0..<pageSize {
          let row = (0..<region.dimension).map { _ in random.roughNormal() * scale }
          nb_region_store(
            nb_level_active(), &view, Int32(token), row, pool.decodeScale(layer: 1, kind: region.kind), nil)
        }
      }
    }
    var batch = StepBatch()
    for (index, sequence) in sequences.enumerated() {
      batch.append(
        tokens: [Int32](repeating: 0, count: sequence.new), start: sequence.context - sequence.new,
        pages: tables[index],
        logits: .none)
    }
    self.batch = batch
    switch layout {
    case .mha(let layout):
      queryWidth = layout.headDimension
      outputWidth = layout.headDimension
    case .mla(let layout):
      queryWidth = layout.latentDimension + layout.ropeDimension
      outputWidth = layout.latentDimension
    }
    softmaxScale = 1 / Float(queryWidth).squareRoot()
    queries = (0..<batch.tokenCount * queryHeads * queryWidth).map { _ in random.roughNormal() * queryScale }
  }

  /// [T, queryHeads, outputWidth], through rows that are wider than they need to be.
  func run(_ backend: any AttentionBackend, on batch: StepBatch? = nil, queries: [Float]? = nil) -> [Float] {
    let batch = batch ?? self.batch
    let width = queryHeads * outputWidth
    let stride = width + 3
    var output = [Float](repeating: .nan, count: batch.tokenCount * stride)
    (queries ?? self.queries).withUnsafeBufferPointer { queries in
      output.withUnsafeMutableBufferPointer { output in
        guard let queries = queries.baseAddress, let output = output.baseAddress else { return }
        backend.attend(
          AttentionCall(
            queries: queries, queryStride: queryHeads * queryWidth, output: output, outputStride: stride,
            queryHeadCount: queryHeads, layer: 1, softmaxScale: softmaxScale),
          batch: batch, pool: pool)
      }
    }
    return (0..<batch.tokenCount).flatMap { output[$0 * stride..<$0 * stride + width] }
  }

  /// The rows of one sequence's tokens `range` alone in a step of their own.
  func step(sequence: Int, tokens range: Range<Int>) -> (batch: StepBatch, queries: [Float], rows: Range<Int>) {
    var step = StepBatch()
    let start = Int(batch.queryOffsets[sequence])
    let pages = batch.pageTables[
      Int(batch.pageTableOffsets[sequence])..<Int(batch.pageTableOffsets[sequence + 1])]
    step.append(
      tokens: [Int32](repeating: 0, count: range.count), start: Int(batch.positions[start + range.lowerBound]),
      pages: pages,
      logits: .none)
    let width = queryHeads * queryWidth
    let first = start + range.lowerBound
    return (step, Array(queries[first * width..<(first + range.count) * width]), first..<first + range.count)
  }
}

/// |a - b| / |b| over whole arrays.
func relativeError(_ found: [Float], _ wanted: [Float]) -> Double {
  var difference = 0.0
  var total = 0.0
  for index in found.indices {
    let delta = Double(found[index]) - Double(wanted[index])
    difference += delta * delta
    total += Double(wanted[index]) * Double(wanted[index])
  }
  return (difference / total).squareRoot()
}
