import ModelFamilies
import Operators
import PagedCache
import Synchronization
import TextCodec

/// The engine's state and step loop. Everything here belongs to one thread.
final class EngineCore {
  let loaded: LoadedModel
  let configuration: EngineConfiguration
  let cache: CacheManager
  let scheduler: Scheduler
  let identity: CacheIdentity
  let vocabularySize: Int
  let mailbox: Mailbox
  let delivery: Delivery
  let published: StatisticsBox

  var requests: [UInt64: RequestState] = [:]
  private var inbox: [Mailbox.Message] = []
  /// What the clients are told after this step.
  var outbox: [Delivery.Item] = []
  private var batch = StepBatch()
  /// The step before: a model may still hold its arrays, so the two take turns instead of being copied.
  private var spareBatch = StepBatch()
  var logits = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
  var scratch = SamplerScratch()
  let speculator: Speculator?
  var statistics: EngineStatistics
  /// When the next deadline passes, if any request has one.
  var nextExpiry: Moment?
  /// Processor time of this thread in the model, in this turn of the loop.
  private var busyInModel = Duration.zero
  private var isDraining = false
  var isStopped = false

  init(
    loaded: LoadedModel, configuration: EngineConfiguration, cache: CacheManager, mailbox: Mailbox,
    delivery: Delivery, published: StatisticsBox
  ) {
    self.loaded = loaded
    self.configuration = configuration
    self.cache = cache
    self.mailbox = mailbox
    self.delivery = delivery
    self.published = published
    scheduler = Scheduler(cache: cache, configuration: configuration)
    identity = CacheIdentity(
      model: loaded.fingerprint, arithmetic: loaded.arithmetic, pool: cache.pool, draftPool: cache.draftPool)
    vocabularySize = loaded.model.vocabularySize
    if let speculation = configuration.speculation, let model = loaded.model as? any DraftingModel,
      let pool = cache.draftPool
    {
      speculator = Speculator(model: model, draftTokenCount: speculation.draftTokenCount, pool: pool)
    } else {
      speculator = nil
    }
    statistics = published.value.withLock { $0 }
    outbox.reserveCapacity(delivery.capacity)
  }

  deinit { logits.deallocate() }

  // MARK: The loop

  /// Runs until the engine is shut down.
  func run() {
    while !isStopped {
      mailbox.collect(into: &inbox, blocking: scheduler.isIdle)
      let start = ThreadClock.now
      for message in inbox { handle(message) }
      inbox.removeAll(keepingCapacity: true)
      busyInModel = .zero
      if !scheduler.isIdle { step() }
      publishStatistics()
      delivery.post(&outbox)
      statistics.overheadTime += ThreadClock.now - start - busyInModel
      if isDraining, scheduler.isIdle { isStopped = true }
    }
    mailbox.close()
    mailbox.collect(into: &inbox, blocking: false)
    for message in inbox { handle(message) }
    for state in Array(requests.values) { end(state, reason: .cancelled) }
    publishStatistics()
    delivery.post(&outbox)
    delivery.close()
  }

  private func handle(_ message: Mailbox.Message) {
    switch message {
    case .submit(let state):
      if isStopped || isDraining {
        mailbox.queuedCount.subtract(1, ordering: .relaxed)
        outbox.append(.end(.shutDown, state.stream))
      } else {
        accept(state)
      }
    case .cancel(let id): if let state = requests[id] { end(state, reason: .cancelled) }
    case .perform(let body): body(self)
    case .shutDown(let drain):
      isDraining = true
      if !drain { isStopped = true }
    }
  }

  private func accept(_ state: RequestState) {
    requests[state.id] = state
    if let expiry = state.expiry { nextExpiry = min(expiry, nextExpiry ?? expiry) }
    let sequence = GenerationSequence(
      state: state, choice: 0, tokens: state.prompt, sampler: makeSampler(state, choice: 0),
      text: TextOutput(tokenizer: loaded.tokenizer, stops: state.stops))
    state.choices = [sequence]
    scheduler.enqueue(sequence)
  }

  func makeSampler(_ state: RequestState, choice: Int) -> Sampler {
    let sampling = state.request.sampling
    return Sampler(
      parameters: sampling, seed: state.seed, choice: choice, prompt: state.prompt,
      endTokens: sampling.ignoreEOS ? [] : loaded.endTokens)
  }

  // MARK: A step

  private func step() {
    let start = Moment.now
    if let nextExpiry, nextExpiry <= start { expire(now: start) }
    scheduler.plan(now: start)
    statistics.peakRunningRequests = max(statistics.peakRunningRequests, scheduler.running.count)
    statistics.kvCache.peakActivePages = max(statistics.kvCache.peakActivePages, cache.activePageCount)
    guard !scheduler.work.isEmpty else {
      // Can't happen with requests that fit into the pool; refuse rather than turn in circles.
      if scheduler.running.isEmpty, let stuck = scheduler.waiting.first {
        fail(
          stuck.state,
          .requestExceedsPool(tokens: stuck.tokens.count, poolTokens: cache.pool.pageCount * cache.pageSize))
      }
      return
    }
    do {
      if let speculator { try inModel { try speculator.draft(for: scheduler.work, cache: cache) } }
      swap(&batch, &spareBatch)
      batch.removeAll()
      for work in scheduler.work { append(work) }
      reserveLogits(rows: batch.logitsRows.count)
      try forward(scheduler.work)
    } catch {
      runApart()
      return
    }
    statistics.steps += 1
    let now = Moment.now
    var row = 0
    for (index, work) in scheduler.work.enumerated() {
      let rows = Int(batch.queryOffsets[index])..<Int(batch.queryOffsets[index + 1])
      settle(work, row: &row, rows: rows, now: now)
    }
    if configuration.checksIntegrity { checkIntegrityOrStop() }
  }

  private func forward(_ work: [Scheduler.Work]) throws {
    try inModel {
      if let speculator {
        try speculator.forward(batch, work: work, pool: cache.pool, logits: logits)
      } else {
        try loaded.model.forward(batch, pool: cache.pool, logits: logits)
      }
    }
  }

  /// Times what the model does, apart from what the engine does around it.
  private func inModel(_ body: () throws -> Void) rethrows {
    let (start, busy) = (Moment.now, ThreadClock.now)
    defer {
      busyInModel += ThreadClock.now - busy
      statistics.modelTime += Moment.now - start
    }
    try body()
  }

  private func append(_ work: Scheduler.Work) {
    let sequence = work.sequence
    let start = sequence.table.length - (speculator?.repeatedCount(sequence) ?? 0)
    let end = sequence.table.length + work.tokenCount
    if sequence.state.isQueued {
      sequence.state.isQueued = false
      mailbox.queuedCount.subtract(1, ordering: .relaxed)
    }
    let pageCount = cache.pageCount(forTokens: end + sequence.drafts.count)
    guard sequence.drafts.isEmpty else {
      return batch.append(
        tokens: sequence.tokens[start..<end] + sequence.drafts, start: start,
        pages: sequence.table.pages.prefix(pageCount), logits: .all)
    }
    sequence.tokens.withUnsafeBufferPointer { tokens in
      sequence.table.pages.withUnsafeBufferPointer { pages in
        batch.append(
          tokens: UnsafeBufferPointer(rebasing: tokens[start..<end]), start: start,
          pages: UnsafeBufferPointer(rebasing: pages.prefix(pageCount)), logits: work.wantsLogits ? .last : .none)
      }
    }
  }

  /// After a failed step: runs each sequence by itself, so that only those whose own step fails end. Storing the same tokens
  /// again gives the same bytes.
  private func runApart() {
    for work in scheduler.work {
      forgetDrafts(of: work.sequence)
      guard !work.sequence.hasEnded else { continue }
      batch.removeAll()
      append(work)
      reserveLogits(rows: batch.logitsRows.count)
      do {
        try forward([work])
        var row = 0
        settle(work, row: &row, rows: 0..<batch.tokenCount, now: Moment.now)
      } catch {
        // What the failed step has stored is not to be trusted.
        fail(work.sequence.state, EngineError.stepFailed("\(error)"))
      }
    }
  }

  private func reserveLogits(rows: Int) {
    let count = rows * vocabularySize
    guard count > logits.count else { return }
    logits.deallocate()
    logits = .allocate(capacity: count)
    logits.initialize(repeating: 0)
  }
}
