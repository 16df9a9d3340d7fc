/// One forward step over a ragged batch of sequences: the new tokens of each, and where its pages lie.
///
/// Sequence b brings tokens `queryOffsets[b]..<queryOffsets[b + 1]`, which become its positions
/// `contextLengths[b] - count ..< contextLengths[b]`. The same type carries prefill chunks, single-token decode, and a mix.
/// A batch is reused from step to step; `removeAll` keeps the capacity, so that a steady state allocates nothing.
public struct StepBatch: Sendable {
  /// [T] token ids, sequence after sequence.
  public private(set) var tokenIDs: [Int32] = []
  /// [T] position of each token in its sequence.
  public private(set) var positions: [Int32] = []
  /// [B + 1] prefix sums of new tokens.
  public private(set) var queryOffsets: [Int32] = [0]
  /// [B] tokens in the cache after this step's own are stored.
  public private(set) var contextLengths: [Int32] = []
  /// Page ids of all sequences; those of b are `pageTableOffsets[b]..<pageTableOffsets[b + 1]`.
  public private(set) var pageTables: [Int32] = []
  /// [B + 1] prefix sums into `pageTables`.
  public private(set) var pageTableOffsets: [Int32] = [0]
  /// [B] tokens that a sequence brings to the step: its rows, or more after `assignLogitsRows`.
  public private(set) var newTokenCounts: [Int32] = []
  /// [R] rows of T whose logits are wanted, ascending.
  public private(set) var logitsRows: [Int32] = []

  public init() {}

  public var sequenceCount: Int { contextLengths.count }
  public var tokenCount: Int { tokenIDs.count }

  public mutating func removeAll() {
    tokenIDs.removeAll(keepingCapacity: true)
    positions.removeAll(keepingCapacity: true)
    queryOffsets.removeAll(keepingCapacity: true)
    queryOffsets.append(0)
    contextLengths.removeAll(keepingCapacity: true)
    pageTables.removeAll(keepingCapacity: true)
    pageTableOffsets.removeAll(keepingCapacity: true)
    pageTableOffsets.append(0)
    newTokenCounts.removeAll(keepingCapacity: true)
    logitsRows.removeAll(keepingCapacity: true)
  }

  /// Which of a sequence's new tokens yield logits.
  public enum LogitsRequest: Sendable { case none, last, all }

  /// Adds a sequence's next tokens.
  /// - Parameters:
  ///   - tokens: the new tokens, at least one.
  ///   - start: tokens already stored for this sequence.
  ///   - pages: page ids that cover `start + tokens.count` tokens.
  public mutating func append(
    tokens: some Collection<Int32>, start: Int, pages: some Collection<Int32>, logits: LogitsRequest
  ) {
    let first = tokenIDs.count
    tokenIDs.append(contentsOf: tokens)
    pageTables.append(contentsOf: pages)
    close(first: first, start: start, logits: logits)
  }

  /// The same for memory, which is what an engine has: not generic, so as fast as it can be for callers in other modules.
  public mutating func append(
    tokens: UnsafeBufferPointer<Int32>, start: Int, pages: UnsafeBufferPointer<Int32>, logits: LogitsRequest
  ) {
    let first = tokenIDs.count
    tokenIDs.append(contentsOf: tokens)
    pageTables.append(contentsOf: pages)
    close(first: first, start: start, logits: logits)
  }

  /// Completes the sequence whose tokens are those from row `first` on.
  private mutating func close(first: Int, start: Int, logits: LogitsRequest) {
    precondition(tokenIDs.count > first, "a sequence in a step brings at least one token")
    let count = tokenIDs.count - first
    for index in 0..<count { positions.append(Int32(start + index)) }
    queryOffsets.append(Int32(tokenIDs.count))
    contextLengths.append(Int32(start + count))
    pageTableOffsets.append(Int32(pageTables.count))
    newTokenCounts.append(Int32(count))
    switch logits {
    case .none: break
    case .last: logitsRows.append(Int32(tokenIDs.count - 1))
    case .all: logitsRows.append(contentsOf: (first..<tokenIDs.count).lazy.map { Int32($0) })
    }
  }
}

extension StepBatch {
  /// Becomes the rows of a step whose logits are wanted: what is left to compute once the last layer has stored its keys and values.
  /// Sequences without such rows are left out.
  public mutating func assignLogitsRows(of step: StepBatch) {
    removeAll()
    var next = 0
    for sequence in 0..<step.sequenceCount {
      let first = next
      while next < step.logitsRows.count, step.logitsRows[next] < step.queryOffsets[sequence + 1] { next += 1 }
      guard next > first else { continue }
      // The last row or all of them, so there are no gaps.
      let rows = Int(step.logitsRows[first])..<Int(step.logitsRows[next - 1]) + 1
      let pages = Int(step.pageTableOffsets[sequence])..<Int(step.pageTableOffsets[sequence + 1])
      append(
        tokens: step.tokenIDs[rows], start: Int(step.positions[rows.lowerBound]), pages: step.pageTables[pages],
        logits: .all)
      newTokenCounts[sequenceCount - 1] = step.newTokenCounts[sequence]
    }
  }

  /// The sequence that brings a row. O(log B).
  public func sequence(ofRow row: Int) -> Int {
    var low = 0
    var high = sequenceCount
    while high - low > 1 {
      let middle = (low + high) / 2
      if Int(queryOffsets[middle]) <= row { low = middle } else { high = middle }
    }
    return low
  }
}
