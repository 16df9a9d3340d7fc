import ModelFamilies
import Operators
import PagedCache

/// Drafts tokens for sequences that are decoding, and carries the hidden states that the next draft starts from.
///
/// A draft is a draft layer's likeliest token: the first layer guesses the first, the second the second, and the last all that are
/// left. The step then runs the model over the drafts as if they were the sequence's, and the sampler chooses at each place as it
/// would without drafts; the drafts before its first other choice were right. For a draft that is one token this is rejection
/// sampling (arXiv 2211.17192, section 2.3): it is accepted with the probability that the target distribution gives it, and
/// otherwise replaced by a draw from the rest. As the draw is the one of the run without drafts, the answer is the same token for
/// token, for greedy and for seeded requests.
final class Speculator {
  private let model: any DraftingModel
  private let draftTokenCount: Int
  /// The draft layers' pages.
  private let pool: PagePool
  private var batch = StepBatch()
  /// Sequences that get another draft.
  private var members: [GenerationSequence] = []
  /// [rows of `batch`, hidden size]
  private var previous: [Float] = []
  private var hidden: [Float] = []
  private var logits: [Float] = []
  /// Of each draft layer, [rows of the step, hidden size]: the hidden states of what comes before it.
  private var states: [[Float]]

  private var width: Int { model.hiddenSize }

  init(model: any DraftingModel, draftTokenCount: Int, pool: PagePool) {
    self.model = model
    self.draftTokenCount = draftTokenCount
    self.pool = pool
    states = Array(repeating: [], count: model.draftLayerCount)
  }

  // MARK: Drafting

  /// Fills the drafts of those of a step's sequences that have one token to store and pages to spare.
  func draft(for work: [Scheduler.Work], cache: CacheManager) throws {
    members.removeAll(keepingCapacity: true)
    lastRows = 0
    for work in work where work.wantsLogits && work.tokenCount == 1 && work.sequence.firstToken != nil {
      let sequence = work.sequence
      // The last token needs no draft after it.
      let count = min(draftTokenCount, sequence.state.maxTokens - sequence.generatedCount - 1)
      guard knowsHidden(of: sequence), count > 0 else { continue }
      // Drafts never push others out.
      guard (try? cache.reserve(&sequence.table, tokenCount: sequence.tokens.count + count)) != nil else { continue }
      sequence.draftLimit = count
      members.append(sequence)
    }
    var index = 0
    while !members.isEmpty {
      try draftOnce(index, pageSize: cache.pageSize)
      index += 1
    }
  }

  /// Draft `index` of each of `members`; those with enough leave.
  private func draftOnce(_ index: Int, pageSize: Int) throws {
    // A layer's first draft stores the rows of the drafts before it too: other layers made them.
    let layer = min(index, states.count - 1)
    let rows = layer == index ? index + 1 : 1
    batch.removeAll()
    previous.removeAll(keepingCapacity: true)
    for (member, sequence) in members.enumerated() {
      let known = sequence.tokens.suffix(1) + sequence.drafts
      let start = sequence.table.length + known.count - rows
      batch.append(
        tokens: known.suffix(rows), start: start, pages: sequence.table.pages.prefix((start + rows - 1) / pageSize + 1),
        logits: .last)
      if layer == index { previous += sequence.hidden?.states[values(layer..<layer + 1)] ?? [] }
      // What the last draft's rows gave: all of them, or the last one.
      let count = layer == index ? index : 1
      let end = (member + 1) * lastRows
      previous += hidden[values(end - count..<end)]
    }
    lastRows = rows
    hidden.grow(to: batch.tokenCount * width)
    logits.grow(to: members.count * model.vocabularySize)
    try logits.withUnsafeMutableBufferPointer { logits in
      try run(layer, batch, logits: logits, wantsHidden: true)
    }
    var staying: [GenerationSequence] = []
    var kept = 0
    for (row, sequence) in members.enumerated() {
      let best = logits.withUnsafeMutableBufferPointer {
        let width = model.vocabularySize
        return LogitsRow(values: UnsafeMutableBufferPointer(rebasing: $0[row * width..<(row + 1) * width])).maximum()
      }
      // Logits that are no numbers end the draft; the request fails if the model's own are none either.
      guard let best else { continue }
      sequence.drafts.append(best.token)
      guard sequence.drafts.count < sequence.draftLimit else { continue }
      staying.append(sequence)
      if kept != row {
        let last = Array(hidden[values(row * rows..<(row + 1) * rows)])
        hidden.replaceSubrange(values(kept * rows..<(kept + 1) * rows), with: last)
      }
      kept += 1
    }
    members = staying
  }

  /// Rows of a member in `hidden`.
  private var lastRows = 0

  /// Where rows of hidden states lie.
  private func values(_ rows: Range<Int>) -> Range<Int> { rows.lowerBound * width..<rows.upperBound * width }

  private func run(
    _ layer: Int, _ batch: StepBatch, logits: UnsafeMutableBufferPointer<Float>, wantsHidden: Bool
  ) throws {
    try previous.withUnsafeBufferPointer { previous in
      try hidden.withUnsafeMutableBufferPointer { hidden in
        try model.draft(
          batch, layer: layer, pool: pool, previousHidden: previous, logits: logits,
          hidden: wantsHidden ? hidden : UnsafeMutableBufferPointer(start: nil, count: 0))
      }
    }
  }

  // MARK: The step

  /// Stored tokens that a sequence's next step must run again, for their hidden states: a cached prefix has none. The first draft
  /// layer goes on from one of them, the second from two. What they store is what is stored already; what draft layers store
  /// of the tokens after them doesn't depend on where a cached prefix ended.
  func repeatedCount(_ sequence: GenerationSequence) -> Int {
    knowsHidden(of: sequence) ? 0 : min(states.count, sequence.table.length)
  }

  private func knowsHidden(of sequence: GenerationSequence) -> Bool {
    sequence.hidden.map { $0.position == sequence.table.length - 1 } ?? false
  }

  /// Runs the model over a step's batch, then the draft layers over the same tokens.
  func forward(
    _ step: StepBatch, work: [Scheduler.Work], pool main: PagePool, logits: UnsafeMutableBufferPointer<Float>
  ) throws {
    for layer in states.indices { states[layer].grow(to: step.tokenCount * width) }
    try states[0].withUnsafeMutableBufferPointer { hidden in
      try model.forward(step, pool: main, logits: logits, hidden: hidden)
    }
    for layer in states.indices { try follow(step, layer: layer, work: work) }
  }

  private func follow(_ step: StepBatch, layer: Int, work: [Scheduler.Work]) throws {
    previous.removeAll(keepingCapacity: true)
    batch.removeAll()
    var kept: [Range<Int>] = []
    for (index, work) in work.enumerated() {
      var rows = step.rows(ofSequence: index)
      let start = Int(step.positions[rows.lowerBound])
      if start == 0 {
        previous.append(contentsOf: repeatElement(0, count: width))
      } else if let hidden = work.sequence.hidden, hidden.position == start - 1 {
        previous += hidden.states[values(layer..<layer + 1)]
      } else {
        rows = rows.lowerBound + layer + 1..<rows.upperBound
        previous += states[layer][values(rows.lowerBound - 1..<rows.lowerBound)]
      }
      previous += states[layer][values(rows.lowerBound..<rows.upperBound - 1)]
      batch.append(
        tokens: step.tokenIDs[rows], start: Int(step.positions[rows.lowerBound]), pages: step.pages(ofSequence: index),
        logits: .none)
      kept.append(rows)
    }
    let isLast = layer == states.count - 1
    hidden.grow(to: batch.tokenCount * width)
    try run(layer, batch, logits: UnsafeMutableBufferPointer(start: nil, count: 0), wantsHidden: !isLast)
    guard !isLast else { return }
    var row = 0
    for rows in kept {
      states[layer + 1].replaceSubrange(values(rows), with: hidden[values(row..<row + rows.count)])
      row += rows.count
    }
  }

  /// Keeps the hidden states of a row of the last step as those of the sequence's last stored token.
  func keepHidden(of sequence: GenerationSequence, row: Int) {
    sequence.hidden = HiddenState(
      position: sequence.table.length - 1, states: states.flatMap { $0[values(row..<row + 1)] })
  }
}

/// The hidden states of a sequence's token: after the model's final norm, then after each draft layer but the last.
struct HiddenState {
  let position: Int
  /// [draft layers, hidden size]
  let states: [Float]
}

extension StepBatch {
  fileprivate func rows(ofSequence index: Int) -> Range<Int> {
    Int(queryOffsets[index])..<Int(queryOffsets[index + 1])
  }

  fileprivate func pages(ofSequence index: Int) -> ArraySlice<Int32> {
    pageTables[Int(pageTableOffsets[index])..<Int(pageTableOffsets[index + 1])]
  }
}

extension [Float] {
  fileprivate mutating func grow(to count: Int) {
    if count > self.count { append(contentsOf: repeatElement(0, count: count - self.count)) }
  }
}
