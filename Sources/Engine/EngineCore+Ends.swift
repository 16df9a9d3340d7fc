import Synchronization

/// How completions and requests end.
extension EngineCore {
  func finish(_ sequence: GenerationSequence, reason: FinishReason, matchedStop: String? = nil) {
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
    outbox.append(.finished(completion, state.stream))
    guard isLast else { return }
    // Choices that the prompt's end would have made end with the first one.
    if !state.hasForked {
      for choice in 1..<state.request.choiceCount {
        outbox.append(.finished(completion.of(choice: choice), state.stream))
      }
    }
    outbox.append(.end(nil, state.stream))
  }

  /// Ends all of a request's choices.
  func end(_ state: RequestState, reason: FinishReason) {
    for sequence in state.choices { finish(sequence, reason: reason) }
  }

  func fail(_ state: RequestState, _ error: EngineError) {
    for sequence in state.choices {
      sequence.hasEnded = true
      scheduler.remove(sequence, keepingPages: false)
    }
    state.choices = []
    forget(state)
    outbox.append(.end(error, state.stream))
  }

  func forget(_ state: RequestState) {
    guard requests.removeValue(forKey: state.id) != nil else { return }
    if state.isQueued { mailbox.queuedCount.subtract(1, ordering: .relaxed) }
    state.isQueued = false
    statistics.finishedRequests += 1
  }

  func expire(now: Moment) {
    for state in Array(requests.values) {
      if let expiry = state.expiry, expiry <= now { end(state, reason: .deadline) }
    }
    nextExpiry = requests.values.lazy.compactMap(\.expiry).min()
  }

  func timings(of sequence: GenerationSequence) -> Timings {
    var timings = Timings()
    let state = sequence.state
    let started = state.started ?? Moment.now
    timings.queued = started - state.submitted
    let first = sequence.firstToken ?? Moment.now
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
}
