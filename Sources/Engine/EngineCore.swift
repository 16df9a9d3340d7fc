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
  private let mailbox: Mailbox
  private let published: StatisticsBox

  private var requests: [UInt64: RequestState] = [:]
  private var inbox: [Mailbox.Message] = []
  private var batch = StepBatch()
  /// The step before: a model may still hold its arrays, so the two take turns instead of being copied.
  private var spareBatch = StepBatch()
  private var logits = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
  private var scratch = SamplerScratch()
  private let speculator: Speculator?
  private var statistics: EngineStatistics
  private var deadlineCount = 0
  private var isDraining = false
  private var isStopped = false

  init(
    loaded: LoadedModel, configuration: EngineConfiguration, cache: CacheManager, mailbox: Mailbox,
    published: StatisticsBox
  ) {
    self.loaded = loaded
    self.configuration = configuration
    self.cache = cache
    self.mailbox = mailbox
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
  }

  deinit { logits.deallocate() }

  // MARK: The loop

  /// Runs until the engine is shut down.
  func run() {
    while !isStopped {
      mailbox.collect(into: &inbox, blocking: scheduler.isIdle)
      for message in inbox { handle(message) }
      inbox.removeAll(keepingCapacity: true)
      if scheduler.isIdle { publishStatistics() } else { step() }
      if isDraining, scheduler.isIdle { isStopped = true }
    }
    mailbox.close()
    mailbox.collect(into: &inbox, blocking: false)
    for message in inbox { handle(message) }
    for state in Array(requests.values) { end(state, reason: .cancelled) }
    publishStatistics()
    mailbox.announceStop()
  }

  private func handle(_ message: Mailbox.Message) {
    switch message {
    case .submit(let state):
      if isStopped || isDraining {
        mailbox.queuedCount.subtract(1, ordering: .relaxed)
        state.continuation.finish(throwing: EngineError.shutDown)
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
    if state.expiry != nil { deadlineCount += 1 }
    let sequence = GenerationSequence(
      state: state, choice: 0, tokens: state.prompt, sampler: makeSampler(state, choice: 0),
      text: TextOutput(tokenizer: loaded.tokenizer, stops: state.stops))
    state.choices = [sequence]
    scheduler.enqueue(sequence)
  }

  private func makeSampler(_ state: RequestState, choice: Int) -> Sampler {
    let sampling = state.request.sampling
    return Sampler(
      parameters: sampling, seed: state.seed, choice: choice, prompt: state.prompt,
      endTokens: sampling.ignoreEOS ? [] : loaded.endTokens)
  }

  // MARK: A step

  private func step() {
    let start = ContinuousClock.now
    let busyStart = ThreadClock.now
    if deadlineCount > 0 { expire(now: start) }
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
      return publishStatistics()
    }
    let modelStart = ContinuousClock.now
    let busyBefore = ThreadClock.now - busyStart
    do {
      try speculator?.draft(for: scheduler.work, cache: cache)
      swap(&batch, &spareBatch)
      batch.removeAll()
      for work in scheduler.work { append(work) }
      reserveLogits(rows: batch.logitsRows.count)
      try forward(scheduler.work)
    } catch {
      runApart()
      return publishStatistics()
    }
    let modelEnd = ContinuousClock.now
    let settleStart = ThreadClock.now
    statistics.steps += 1
    statistics.modelTime += modelEnd - modelStart
    var row = 0
    for (index, work) in scheduler.work.enumerated() {
      let rows = Int(batch.queryOffsets[index])..<Int(batch.queryOffsets[index + 1])
      settle(work, row: &row, rows: rows, now: modelEnd)
    }
    publishStatistics()
    if configuration.checksIntegrity { checkIntegrityOrStop() }
    statistics.overheadTime += busyBefore + (ThreadClock.now - settleStart)
  }

  private func forward(_ work: [Scheduler.Work]) throws {
    if let speculator {
      try speculator.forward(batch, work: work, pool: cache.pool, logits: logits)
    } else {
      try loaded.model.forward(batch, pool: cache.pool, logits: logits)
    }
  }

  private func append(_ work: Scheduler.Work) {
    let sequence = work.sequence
    let start = sequence.table.length - (speculator?.repeatedCount(sequence) ?? 0)
    let end = sequence.table.length + work.tokenCount
    if sequence.state.isQueued {
      sequence.state.isQueued = false
      mailbox.queuedCount.subtract(1, ordering: .relaxed)
    }
    let tokens = sequence.tokens[start..<end]
    let pages = sequence.table.pages.prefix(cache.pageCount(forTokens: end + sequence.drafts.count))
    if sequence.drafts.isEmpty {
      batch.append(tokens: tokens, start: start, pages: pages, logits: work.wantsLogits ? .last : .none)
    } else {
      batch.append(tokens: tokens + sequence.drafts, start: start, pages: pages, logits: .all)
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
        settle(work, row: &row, rows: 0..<batch.tokenCount, now: ContinuousClock.now)
      } catch {
        // What the failed step has stored is not to be trusted.
        fail(work.sequence.state, EngineError.stepFailed("\(error)"))
      }
    }
  }

  /// Takes in what a step has computed for a sequence.
  /// - Parameters:
  ///   - row: the next row of logits; moves on by this sequence's.
  ///   - rows: the sequence's rows of the batch.
  private func settle(_ work: Scheduler.Work, row: inout Int, rows: Range<Int>, now: ContinuousClock.Instant) {
    let sequence = work.sequence
    let state = sequence.state
    // Another choice of the same request may have failed in this step, and this one with it.
    guard !sequence.hasEnded else {
      row += work.wantsLogits ? 1 + sequence.drafts.count : 0
      return
    }
    guard sequence.drafts.isEmpty else { return check(sequence, row: &row, firstRow: rows.lowerBound, now: now) }
    cache.advance(&sequence.table, by: work.tokenCount)
    cache.publish(&sequence.table, tokens: sequence.tokens)
    speculator?.keepHidden(of: sequence, row: rows.upperBound - 1)
    if work.tokenCount > 1 || sequence.firstToken == nil { statistics.prefillTokens += work.tokenCount }
    guard work.wantsLogits else {
      if sequence.pendingCount == 0 { finish(sequence, reason: .length) }
      return
    }
    let values = UnsafeMutableBufferPointer(rebasing: logits[row * vocabularySize..<(row + 1) * vocabularySize])
    row += 1
    guard sequence.firstToken == nil else { return generate(sequence, from: values, now: now) }
    // The prompt is in the cache: its choices part here, with their first tokens from one row.
    fork(sequence)
    for choice in state.choices where !choice.hasEnded { generate(choice, from: values, now: now) }
  }

  /// Takes in a step over a sequence's last token and the drafts behind it: the sampler chooses at each place, up to its first choice
  /// that is not the draft. Nothing is left of the other drafts.
  private func check(
    _ sequence: GenerationSequence, row: inout Int, firstRow: Int, now: ContinuousClock.Instant
  ) {
    let drafts = sequence.drafts
    sequence.drafts = []
    // As they are now: a completion that ends gives its pages away.
    let pages = sequence.table.pages
    let start = sequence.table.length
    var stored = 0
    var accepted = 0
    while true {
      cache.advance(&sequence.table, by: 1)
      cache.publish(&sequence.table, tokens: sequence.tokens)
      speculator?.keepHidden(of: sequence, row: firstRow + stored)
      let place = row + stored
      stored += 1
      generate(
        sequence,
        from: UnsafeMutableBufferPointer(rebasing: logits[place * vocabularySize..<(place + 1) * vocabularySize]),
        now: now)
      guard accepted < drafts.count, sequence.tokens.last == drafts[accepted] else { break }
      accepted += 1
      if sequence.hasEnded { break }
    }
    row += drafts.count + 1
    cache.erase(start + stored..<start + 1 + drafts.count, pages: pages)
    statistics.speculation.checks += 1
    statistics.speculation.draftTokens += drafts.count
    statistics.speculation.acceptedTokens += accepted
    statistics.speculation.tokens += stored
  }

  /// Erases what a step that failed may have stored of drafts.
  private func forgetDrafts(of sequence: GenerationSequence) {
    let start = sequence.table.length + 1
    if !sequence.hasEnded, !sequence.drafts.isEmpty {
      cache.erase(start..<start + sequence.drafts.count, pages: sequence.table.pages)
    }
    sequence.drafts = []
  }

  /// Makes the other choices of a request whose prompt is in the cache now. They share its pages.
  private func fork(_ sequence: GenerationSequence) {
    let state = sequence.state
    state.hasForked = true
    for choice in 1..<state.request.choiceCount {
      let copy = GenerationSequence(
        state: state, choice: choice, tokens: sequence.tokens, sampler: makeSampler(state, choice: choice),
        text: TextOutput(tokenizer: loaded.tokenizer, stops: state.stops))
      copy.table = cache.fork(sequence.table)
      copy.cachedTokens = sequence.cachedTokens
      copy.hidden = sequence.hidden
      state.choices.append(copy)
      scheduler.enqueueFork(copy)
    }
  }

  /// Chooses a sequence's next token, tells the client, and ends the sequence where it is complete.
  private func generate(
    _ sequence: GenerationSequence, from values: UnsafeMutableBufferPointer<Float>, now: ContinuousClock.Instant
  ) {
    let state = sequence.state
    let sampling = state.request.sampling
    let position = sequence.tokens.count
    let digest = state.request.digestsLogits ? XXH64.hash(UnsafeRawBufferPointer(values)) : nil
    guard let token = sequence.sampler.sample(values, position: position, scratch: &scratch) else {
      return fail(state, .nonFiniteLogits(position: position - 1))
    }
    let logprobs = sequence.sampler.logprobs(values, token: token, scratch: &scratch)
    sequence.tokens.append(token)
    if sequence.firstToken == nil { sequence.firstToken = now }
    sequence.lastToken = now
    statistics.generatedTokens += 1

    let isEnd = !sampling.ignoreEOS && loaded.endTokens.contains(token)
    let isStopToken = isEnd || sampling.stopTokenIDs.contains(token)
    let (text, matchedStop) = isStopToken ? ("", nil) : sequence.text.append(token)
    state.continuation.yield(
      .token(
        GeneratedToken(
          choice: sequence.choice, id: token, text: text, logprob: logprobs?.own.logprob,
          topLogprobs: logprobs?.top ?? [], time: now, logitsDigest: digest)))
    if isStopToken {
      finish(sequence, reason: .stop, matchedStop: isEnd ? nil : "\(token)")
    } else if let matchedStop {
      finish(sequence, reason: .stop, matchedStop: matchedStop)
    } else if sequence.generatedCount >= state.maxTokens {
      finish(sequence, reason: .length)
    }
  }

  private func reserveLogits(rows: Int) {
    let count = rows * vocabularySize
    guard count > logits.count else { return }
    logits.deallocate()
    logits = .allocate(capacity: count)
    logits.initialize(repeating: 0)
  }

  // MARK: Ends

  private func finish(_ sequence: GenerationSequence, reason: FinishReason, matchedStop: String? = nil) {
    let state = sequence.state
    let kvTokens = sequence.table.length
    sequence.hasEnded = true
    scheduler.remove(sequence)
    let (rest, lateStop) = matchedStop == nil ? sequence.text.finish() : ("", nil)
    var usage = Usage()
    usage.promptTokens = state.prompt.count
    usage.cachedTokens = sequence.cachedTokens
    usage.completionTokens = sequence.generatedCount
    usage.kvTokens = kvTokens
    usage.preemptions = sequence.preemptions
    let completion = Completion(
      choice: sequence.choice, reason: lateStop == nil ? reason : .stop, text: rest,
      matchedStop: matchedStop ?? lateStop, usage: usage, timings: timings(of: sequence))
    if sequence.choice == 0 { statistics.cachedPromptTokens += sequence.cachedTokens }
    state.choices.removeAll { $0 === sequence }
    let isLast = state.choices.isEmpty
    if isLast { forget(state) }
    publishStatistics()
    state.continuation.yield(.finished(completion))
    guard isLast else { return }
    // Choices that the prompt's end would have made end with the first one.
    if !state.hasForked {
      for choice in 1..<state.request.choiceCount {
        state.continuation.yield(.finished(completion.of(choice: choice)))
      }
    }
    state.continuation.finish()
  }

  /// Ends all of a request's choices.
  private func end(_ state: RequestState, reason: FinishReason) {
    for sequence in state.choices { finish(sequence, reason: reason) }
  }

  private func fail(_ state: RequestState, _ error: EngineError) {
    for sequence in state.choices {
      sequence.hasEnded = true
      scheduler.remove(sequence, keepingPages: false)
    }
    state.choices = []
    forget(state)
    publishStatistics()
    state.continuation.finish(throwing: error)
  }

  private func forget(_ state: RequestState) {
    guard requests.removeValue(forKey: state.id) != nil else { return }
    if state.expiry != nil { deadlineCount -= 1 }
    if state.isQueued { mailbox.queuedCount.subtract(1, ordering: .relaxed) }
    state.isQueued = false
    statistics.finishedRequests += 1
  }

  private func expire(now: ContinuousClock.Instant) {
    for state in Array(requests.values) {
      if let expiry = state.expiry, expiry <= now { end(state, reason: .deadline) }
    }
  }

  private func timings(of sequence: GenerationSequence) -> Timings {
    var timings = Timings()
    let state = sequence.state
    let started = state.started ?? ContinuousClock.now
    timings.queued = started - state.submitted
    let first = sequence.firstToken ?? ContinuousClock.now
    timings.timeToFirstToken = first - state.submitted
    timings.prefill = first - started
    if let last = sequence.lastToken { timings.decode = last - first }
    if timings.prefill > .zero {
      timings.prefillTokensPerSecond =
        Double(state.prompt.count - sequence.cachedTokens) / timings.prefill.inSeconds
    }
    if timings.decode > .zero {
      timings.decodeTokensPerSecond = Double(sequence.generatedCount - 1) / timings.decode.inSeconds
    }
    return timings
  }

  // MARK: Books

  /// - Throws: `PagedCacheError.corrupted`.
  func checkIntegrity() throws(PagedCacheError) {
    let sequences = requests.values.flatMap(\.choices)
    try cache.checkIntegrity(tables: sequences.map(\.table), swapped: sequences.map(\.swapped))
  }

  private func checkIntegrityOrStop() {
    do throws(PagedCacheError) { try checkIntegrity() } catch {
      for state in Array(requests.values) { fail(state, .stepFailed(error.description)) }
      isStopped = true
    }
  }

  private func publishStatistics() {
    statistics.runningRequests = scheduler.running.count
    statistics.waitingRequests = scheduler.waiting.count
    statistics.preemptions = scheduler.preemptionCount
    statistics.swapOuts = scheduler.swapOutCount
    statistics.kvCache.freePages = cache.allocator.freeCount
    statistics.kvCache.cachedPages = cache.tree.evictableCount
    statistics.kvCache.activePages = cache.activePageCount
    statistics.kvCache.evictedPages = cache.tree.evictedCount
    statistics.kvCache.copiedPages = cache.copiedPageCount
    statistics.kvCache.swapSlotsUsed = cache.swap?.usedCount ?? 0
    let encoded = loaded.encodeStatistics()
    statistics.kvCache.replacedNonfinite = encoded.replacedNonfinite
    statistics.kvCache.subnormalScaleShare = encoded.subnormalScaleShare
    published.value.withLock { $0 = statistics }
  }
}

/// The last step's statistics, for any thread.
final class StatisticsBox: Sendable {
  let value: Mutex<EngineStatistics>
  init(_ statistics: EngineStatistics) { value = Mutex(statistics) }
}
