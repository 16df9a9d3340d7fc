import PagedCache

/// From logits to tokens.
extension EngineCore {
  /// Takes in what a step has computed for a sequence.
  /// - Parameters:
  ///   - row: the next row of logits; moves on by this sequence's.
  ///   - rows: the sequence's rows of the batch.
  func settle(_ work: Scheduler.Work, row: inout Int, rows: Range<Int>, now: Moment) {
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
  func check(
    _ sequence: GenerationSequence, row: inout Int, firstRow: Int, now: Moment
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
  func forgetDrafts(of sequence: GenerationSequence) {
    let start = sequence.table.length + 1
    if !sequence.hasEnded, !sequence.drafts.isEmpty {
      cache.erase(start..<start + sequence.drafts.count, pages: sequence.table.pages)
    }
    sequence.drafts = []
  }

  /// Makes the other choices of a request whose prompt is in the cache now. They share its pages.
  func fork(_ sequence: GenerationSequence) {
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
  func generate(
    _ sequence: GenerationSequence, from values: UnsafeMutableBufferPointer<Float>, now: Moment
  ) {
    let state = sequence.state
    let position = sequence.tokens.count
    let digest = state.request.digestsLogits ? XXH64.hash(UnsafeRawBufferPointer(values)) : nil
    guard let token = sequence.sampler.sample(values, position: position, scratch: &scratch) else {
      return fail(state, .nonFiniteLogits(position: position - 1))
    }
    let wantsLogprobs = state.request.sampling.logprobs != nil
    let logprobs = wantsLogprobs ? sequence.sampler.logprobs(values, token: token, scratch: &scratch) : nil
    sequence.tokens.append(token)
    if sequence.firstToken == nil { sequence.firstToken = now }
    sequence.lastToken = now
    statistics.generatedTokens += 1

    let isEnd = !state.request.sampling.ignoreEOS && loaded.endTokens.contains(token)
    let isStopToken = isEnd || state.request.sampling.stopTokenIDs.contains(token)
    let (text, matchedStop) = isStopToken ? ("", nil) : sequence.text.append(token)
    let event = Delivery.Token(
      choice: sequence.choice, id: token, text: text, logprob: logprobs?.own.logprob,
      topLogprobs: logprobs?.top ?? [], time: now, logitsDigest: digest)
    outbox.append(.token(event, state.stream))
    if isStopToken {
      finish(sequence, reason: .stop, matchedStop: isEnd ? nil : "\(token)")
    } else if let matchedStop {
      finish(sequence, reason: .stop, matchedStop: matchedStop)
    } else if sequence.generatedCount >= state.maxTokens {
      finish(sequence, reason: .length)
    }
  }
}
