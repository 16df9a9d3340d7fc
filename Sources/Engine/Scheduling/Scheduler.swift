import PagedCache

/// Decides what each step computes: who runs, how many tokens of whom, and who has to make room.
///
/// Running sequences come in the order of service. Each takes one token a step while decoding; prompts share
/// `chunkedPrefillSize` tokens a step. When pages run out, the last in the order is preempted, never one before it: so the
/// first always completes, then the next, and nobody starves. A waiting sequence takes slot and pages from running ones only if
/// their priority is lower than its own.
final class Scheduler {
  /// A sequence's part of a step.
  struct Work {
    let sequence: GenerationSequence
    let tokenCount: Int
    /// The step completes the sequence's tokens, and the next one is to be chosen.
    let wantsLogits: Bool

    init(sequence: GenerationSequence, tokenCount: Int) {
      self.sequence = sequence
      self.tokenCount = tokenCount
      wantsLogits = tokenCount == sequence.pendingCount && sequence.state.maxTokens > 0
    }
  }

  let cache: CacheManager
  let configuration: EngineConfiguration
  /// In the order of service.
  private(set) var running: [GenerationSequence] = []
  private(set) var waiting: [GenerationSequence] = []
  private(set) var work: [Work] = []
  private(set) var preemptionCount = 0
  private(set) var swapOutCount = 0
  /// Set when `waiting`'s first could not start: the pages that were available then. More must be before it is tried again.
  private var blocked: (sequence: ObjectIdentifier, available: Int)?

  /// Waiting sequences among which the longest cached prefix is looked for.
  private static let prefixCandidateCount = 32
  /// Times that a waiting sequence lets others pass.
  private static let patience = 64

  init(cache: CacheManager, configuration: EngineConfiguration) {
    self.cache = cache
    self.configuration = configuration
  }

  var isIdle: Bool { running.isEmpty && waiting.isEmpty }

  func enqueue(_ sequence: GenerationSequence) { waiting.insertInOrder(sequence) }

  /// Lets a fork run at once if there is a slot; it waits without pages otherwise.
  func enqueueFork(_ sequence: GenerationSequence) {
    if running.count < configuration.maxRunningRequests {
      running.insertInOrder(sequence)
      reserveCapacity(for: sequence)
    } else {
      cache.finish(&sequence.table, tokens: sequence.tokens)
      waiting.insertInOrder(sequence)
    }
  }

  /// Takes a sequence out, running or waiting.
  /// - Parameter keepingPages: gives its pages to the prefix cache.
  func remove(_ sequence: GenerationSequence, keepingPages: Bool = true) {
    running.removeAll { $0 === sequence }
    waiting.removeAll { $0 === sequence }
    cache.discard(&sequence.swapped)
    if keepingPages { cache.finish(&sequence.table, tokens: sequence.tokens) } else { cache.release(&sequence.table) }
  }

  /// Fills `work` with the next step.
  func plan(now: Moment) {
    work.removeAll(keepingCapacity: true)
    var budget = configuration.chunkedPrefillSize
    var index = 0
    while index < running.count {
      let sequence = running[index]
      let count = sequence.pendingCount == 1 ? 1 : min(sequence.pendingCount, budget)
      if count > 0, makeRoom(for: sequence, tokenCount: sequence.table.length + count) {
        if sequence.pendingCount > 1 { budget -= count }
        work.append(Work(sequence: sequence, tokenCount: count))
      }
      // A sequence that made room for others is gone, and so are all after it.
      if index < running.count, running[index] === sequence { index += 1 }
    }
    while budget > 0, let sequence = start(now: now) {
      let count = min(sequence.pendingCount, budget)
      if sequence.pendingCount > 1 { budget -= count }
      work.append(Work(sequence: sequence, tokenCount: count))
    }
  }

  // MARK: Room

  /// Reserves pages, preempting from the end of the order of service.
  /// - Returns: false if the sequence itself was preempted.
  private func makeRoom(for sequence: GenerationSequence, tokenCount: Int) -> Bool {
    while true {
      do throws(PagedCacheError) {
        try cache.reserve(&sequence.table, tokenCount: tokenCount)
        return true
      } catch {
        guard let victim = running.last else { return false }
        preempt(victim)
        if victim === sequence { return false }
      }
    }
  }

  private func preempt(_ sequence: GenerationSequence) {
    running.removeAll { $0 === sequence }
    if let swapped = cache.swapOut(sequence.table) {
      sequence.swapped = swapped
      swapOutCount += 1
    }
    cache.finish(&sequence.table, tokens: sequence.tokens)
    sequence.preemptions += 1
    preemptionCount += 1
    waiting.insertInOrder(sequence)
  }

  // MARK: Starting

  /// Moves the next waiting sequence to the running ones, with pages for all its tokens.
  private func start(now: Moment) -> GenerationSequence? {
    guard let index = nextIndex() else { return nil }
    let sequence = waiting[index]
    let isBlocked = blocked.map {
      $0.sequence == ObjectIdentifier(sequence) && cache.availablePageCount <= $0.available
    }
    if isBlocked ?? false, !running.isEmpty { return nil }
    if running.count >= configuration.maxRunningRequests {
      guard let victim = running.last, canDisplaceOthers(sequence) else { return nil }
      displace(victim)
    }
    // Room for one more page each keeps a new sequence from being preempted at once.
    while !admit(sequence, headroom: running.count) {
      guard let victim = running.last, canDisplaceOthers(sequence) else {
        blocked = (ObjectIdentifier(sequence), cache.availablePageCount)
        return nil
      }
      displace(victim)
    }
    blocked = nil
    waiting.removeAll { $0 === sequence }
    for earlier in waiting.prefix(index) { earlier.passedOver += 1 }
    running.insertInOrder(sequence)
    reserveCapacity(for: sequence)
    if sequence.state.started == nil { sequence.state.started = now }
    return sequence
  }

  /// Makes a running sequence of lower priority wait, out of the step that is being planned.
  private func displace(_ victim: GenerationSequence) {
    work.removeAll { $0.sequence === victim }
    preempt(victim)
  }

  /// Lets a sequence grow to its end without allocating in between.
  private func reserveCapacity(for sequence: GenerationSequence) {
    let count = sequence.state.prompt.count + sequence.state.maxTokens
    sequence.tokens.reserveCapacity(count)
    sequence.table.reserveCapacity(cache.pageCount(forTokens: count))
  }

  /// Whether pages of running sequences of lower priority would suffice.
  private func canDisplaceOthers(_ sequence: GenerationSequence) -> Bool {
    let lower = running.reversed().prefix { $0.state.request.priority < sequence.state.request.priority }
    let pages = lower.reduce(cache.availablePageCount) { $0 + $1.table.pages.count }
    return !lower.isEmpty && pages >= cache.pageCount(forTokens: sequence.tokens.count) + running.count - lower.count
  }

  private func admit(_ sequence: GenerationSequence, headroom: Int) -> Bool {
    do throws(PagedCacheError) {
      if !sequence.swapped.isEmpty {
        sequence.table = try cache.swapIn(
          &sequence.swapped, tokens: sequence.tokens, reserving: sequence.tokens.count, headroom: headroom)
        return true
      }
      sequence.table = try cache.makeTable(
        matching: sequence.tokens, limit: sequence.tokens.count - 1, reserving: sequence.tokens.count,
        headroom: headroom)
      if sequence.preemptions == 0 { sequence.cachedTokens = sequence.table.length }
      return true
    } catch { return false }
  }

  private func nextIndex() -> Int? {
    guard let first = waiting.first else { return nil }
    guard configuration.schedulingPolicy == .longestPrefix, configuration.sharesPrefixes,
      first.passedOver < Self.patience, first.preemptions == 0
    else { return 0 }
    var best = (index: 0, length: -1)
    for (index, sequence) in waiting.prefix(Self.prefixCandidateCount).enumerated() {
      guard sequence.state.request.priority == first.state.request.priority else { break }
      let length = cache.cachedPrefixLength(of: sequence.tokens, limit: sequence.tokens.count - 1)
      if length > best.length { best = (index, length) }
    }
    return best.index
  }
}
