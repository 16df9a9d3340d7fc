import CPUBackend
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Testing

/// The last layer runs on the rows whose logits are wanted alone; that changes neither logits nor what is stored.
@Suite struct LogitsRowsTests {
  @Test(arguments: RowInvarianceTests.families, [true, false])
  func anyRows(name: String, isFast: Bool) throws {
    let model = try loadModel("\(GoldenLogits.resources)/\(name)", isFast: isFast)
    let width = model.vocabularySize
    let tokens = try GoldenLogits(name).tokens
    let sequences: [[Int32]] = [
      Array(tokens[0..<19]), Array(tokens[20..<21]), Array(tokens[21..<50]), Array(tokens[40..<50].reversed()),
    ]
    let pages: [[Int32]] = sequences.indices.map { [Int32(2 * $0 + 1), Int32(2 * $0)] }

    /// Logits of a step over all sequences with the rows that are asked for, then of a step with one more token each.
    func logits(_ requests: [StepBatch.LogitsRequest]) throws -> (rows: [Int: [UInt32]], next: [UInt32]) {
      let pool = try PagePool(
        layout: try model.cacheLayout(CacheRecipes(.nvfp4), pageSize: 16), layerCount: model.layerCount, pageCount: 8,
        scales: Array(repeating: .one, count: model.layerCount))
      var batch = StepBatch()
      for (index, sequence) in sequences.enumerated() {
        batch.append(tokens: sequence, start: 0, pages: pages[index], logits: requests[index])
      }
      let first = try run(batch, pool)
      var rows: [Int: [UInt32]] = [:]
      for (index, row) in batch.logitsRows.enumerated() {
        rows[Int(row)] = Array(first[index * width..<(index + 1) * width])
      }
      batch.removeAll()
      for (index, sequence) in sequences.enumerated() {
        batch.append(tokens: [7], start: sequence.count, pages: pages[index], logits: .last)
      }
      return (rows, try run(batch, pool))
    }
    func run(_ batch: StepBatch, _ pool: PagePool) throws -> [UInt32] {
      var logits = [Float](repeating: .nan, count: batch.logitsRows.count * width)
      try logits.withUnsafeMutableBufferPointer { try model.forward(batch, pool: pool, logits: $0) }
      return logits.map(\.bitPattern)
    }

    let full = try logits([.all, .all, .all, .all])
    #expect(full.rows.count == 59)
    for requests: [StepBatch.LogitsRequest] in [
      [.last, .last, .last, .last], [.none, .all, .last, .all], [.all, .none, .none, .last],
      [.none, .none, .none, .none],
    ] {
      let some = try logits(requests)
      #expect(some.next == full.next, "\(requests)")
      for (row, values) in some.rows { #expect(values == full.rows[row], "\(requests), row \(row)") }
    }
  }

  /// A chunk of a prompt stays prefill although the last layer has one row of it left.
  @Test(arguments: RowInvarianceTests.families) func theLastLayerKeepsItsPhase(name: String) throws {
    let workers = WorkerPool(threadCount: 2)
    func logits(_ attention: any AttentionBackend) throws -> [UInt32] {
      let model = try loadModel("\(GoldenLogits.resources)/\(name)", attention: attention, workers: workers)
      let pool = try PagePool(
        layout: try model.cacheLayout(CacheRecipes(.nvfp4), pageSize: 16), layerCount: model.layerCount, pageCount: 4,
        scales: Array(repeating: .one, count: model.layerCount))
      var batch = StepBatch()
      batch.append(tokens: try GoldenLogits(name).tokens[0..<40], start: 0, pages: [2, 0, 1], logits: .last)
      var logits = [Float](repeating: .nan, count: model.vocabularySize)
      try logits.withUnsafeMutableBufferPointer { try model.forward(batch, pool: pool, logits: $0) }
      return logits.map(\.bitPattern)
    }
    let reference = try logits(ReferenceAttention())
    #expect(try logits(FastAttention(workers: workers)) != reference, "the two round differently")
    let phased = PhasedAttention(prefill: ReferenceAttention(), decode: FastAttention(workers: workers))
    #expect(try logits(phased) == reference)
  }

  @Test func whatIsLeftOfAStep() {
    var step = StepBatch()
    step.append(tokens: [1, 2, 3], start: 5, pages: [9], logits: .last)
    step.append(tokens: [4, 5], start: 0, pages: [8], logits: .none)
    step.append(tokens: [6, 7], start: 16, pages: [7, 6], logits: .all)
    var left = StepBatch()
    left.append(tokens: [0], start: 0, pages: [0], logits: .last)
    left.assignLogitsRows(of: step)
    #expect(left.tokenIDs == [3, 6, 7])
    #expect(left.positions == [7, 16, 17])
    #expect(left.queryOffsets == [0, 1, 3])
    #expect(left.contextLengths == [8, 18])
    #expect(left.pageTables == [9, 7, 6])
    #expect(left.pageTableOffsets == [0, 1, 3])
    #expect(left.newTokenCounts == [3, 2])
    #expect(left.logitsRows == [0, 1, 2])
  }
}
