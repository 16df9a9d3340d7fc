import Engine
import Testing

/// Waits until a condition on the engine's statistics holds.
private func eventually(_ engine: Engine, _ condition: (EngineStatistics) -> Bool) async throws -> Bool {
  for _ in 0..<2000 {
    if condition(engine.statistics()) { return true }
    try await Task.sleep(for: .milliseconds(2))
  }
  return false
}

@Suite struct LifecycleTests {
  @Test func refusesWhatCanNotBeServed() async throws {
    let engine = try makeEngine(try configure(poolTokens: 64, contextLength: 100))
    func error(_ request: Request) async -> EngineError? {
      do { _ = try await engine.outcomes(of: request) } catch { return error as? EngineError }
      return nil
    }
    #expect(await error(Request(tokens: [])) == .emptyPrompt)
    #expect(await error(Request(tokens: [1, 64])) == .unknownToken(id: 64, vocabularySize: 64))
    #expect(await error(Request(tokens: [1, -1])) == .unknownToken(id: -1, vocabularySize: 64))
    #expect(await error(Request("text")) == .noText("a text prompt"))
    #expect(await error(Request(tokens: prompt(1, length: 100))) == .promptTooLong(tokens: 100, contextLength: 100))
    #expect(
      await error(try! request(prompt(1, length: 60), maxTokens: 41))
        == .requestTooLong(promptTokens: 60, maxTokens: 41, contextLength: 100))
    #expect(
      await error(try! request(prompt(1, length: 60), maxTokens: 6))
        == .requestExceedsPool(tokens: 65, poolTokens: 64))
    #expect(
      await error(try! request(prompt(1, length: 70), maxTokens: 1))
        == .requestExceedsPool(tokens: 70, poolTokens: 64))
    var many = Request(tokens: [1])
    many.choiceCount = 0
    #expect(await error(many) == .invalidSampling(parameter: "n", expected: "1 to 128", found: "0"))
    // What just fits is served, and the pool's last token is used.
    #expect(try await engine.outcome(of: request(prompt(1, length: 60), maxTokens: 5)).tokens.count == 5)
    // Without max_tokens the answer may be as long as context and pool allow.
    #expect(try await engine.outcome(of: Request(tokens: prompt(2, length: 60))).tokens.count == 5)
    try await engine.checkIntegrity()
  }

  @Test func aFailingRequestFailsAlone() async throws {
    let engine = try makeEngine(failingToken: 63, poisonousToken: 62, try configure())
    let good = try (0..<8).map { try request(prompt($0, length: 20, vocabulary: 32)) }
    let reference = try makeEngine(try configure())
    var expected: [Outcome] = []
    for request in good { expected.append(try await reference.outcome(of: request)) }
    let clean = expected.indices.filter { !expected[$0].tokens.dropLast().contains { $0 >= 62 } }
    #expect(clean.count > 2)

    let broken = engine.generate(try request([1, 2, 63]))
    let poisoned = engine.generate(try request([1, 2, 62]))
    let streams = try clean.map { engine.generate(try request(prompt($0, length: 20, vocabulary: 32))) }
    await #expect(throws: EngineError.stepFailed("Failure()")) { for try await _ in broken {} }
    await #expect(throws: EngineError.nonFiniteLogits(position: 2)) { for try await _ in poisoned {} }
    for (index, stream) in zip(clean, streams) {
      var tokens: [Int32] = []
      for try await event in stream { if case .token(let token) = event { tokens.append(token.id) } }
      #expect(tokens == expected[index].tokens)
    }
    try await engine.checkIntegrity()
  }

  @Test func droppingAStreamEndsItsRequest() async throws {
    let engine = try makeEngine(try configure(poolTokens: 8192))
    var stream: AsyncThrowingStream<GenerationEvent, any Error>? = engine.generate(
      try request([1, 2, 3], maxTokens: 4000))
    var iterator = stream?.makeAsyncIterator()
    // A token shows that the request runs; the statistics follow at the end of the step.
    #expect(try await iterator?.next() != nil)
    iterator = nil
    stream = nil
    #expect(try await eventually(engine) { $0.runningRequests == 0 && $0.finishedRequests == 1 })
    try await engine.checkIntegrity()

    let task = Task { [request = try request([4, 5], maxTokens: 4000)] in
      for try await _ in engine.generate(request) {}
    }
    #expect(try await eventually(engine) { $0.runningRequests == 1 })
    task.cancel()
    #expect(try await eventually(engine) { $0.runningRequests == 0 && $0.finishedRequests == 2 })
    try await engine.checkIntegrity()
    #expect(engine.statistics().generatedTokens < 8000)
  }

  @Test func deadlinesEndRequests() async throws {
    let engine = try makeEngine(try configure(poolTokens: 8192))
    var late = try request([1, 2, 3], maxTokens: 4000)
    late.deadline = .milliseconds(20)
    #expect(try await engine.outcome(of: late).reason == .deadline)
    // One that is beyond any clock never passes.
    late = try request([1, 2, 3], maxTokens: 4)
    late.deadline = .seconds(Int64.max)
    #expect(try await engine.outcome(of: late).reason == .length)
    // One that is long past has passed.
    late.deadline = .seconds(Int64.min)
    #expect(try await engine.outcome(of: late).reason == .deadline)
    try await engine.checkIntegrity()
  }

  /// Memory that holds not even a page is a mistake, not a pool or a swap space that does nothing.
  @Test func refusesMemoryWithoutAPage() throws {
    for (pool, swap, option) in [(63, 0, "--max-total-tokens"), (4096, 1, "--swap-space")] {
      do {
        _ = try makeEngine(EngineConfiguration(poolSize: .tokens(pool), swapSpace: swap))
        Issue.record("took \(option)")
      } catch EngineError.invalidConfiguration(let found, _, _) { #expect(found == option) }
    }
  }

  @Test func everyChoiceHasAnEnd() async throws {
    let engine = try makeEngine(try configure())
    for (maxTokens, deadline) in [(0, nil), (400, Duration.zero), (3, nil)] {
      var forked = try request(prompt(3, length: 40), maxTokens: maxTokens)
      forked.choiceCount = 3
      forked.deadline = deadline
      let outcomes = try await engine.outcomes(of: forked)
      #expect(outcomes.map(\.reason) == Array(repeating: deadline == nil ? .length : .deadline, count: 3))
    }
    try await engine.checkIntegrity()
  }

  @Test func refusesWhenTooManyWait() async throws {
    let engine = try makeEngine(try configure(running: 1, queued: 3))
    let streams = try (0..<40).map { engine.generate(try request(prompt($0, length: 4), maxTokens: 400)) }
    var refused = 0
    for stream in streams {
      do { for try await _ in stream {} } catch EngineError.overloaded { refused += 1 }
    }
    #expect(refused > 0 && refused <= 37)
    #expect(engine.queuedRequestCount == 0)
    try await engine.checkIntegrity()
  }

  @Test func shutsDownGracefully() async throws {
    let engine = try makeEngine(try configure())
    let streams = try (0..<10).map { engine.generate(try request(prompt($0, length: 9), maxTokens: 30)) }
    await engine.shutDown()
    for stream in streams {
      var count = 0
      for try await event in stream { if case .token = event { count += 1 } }
      #expect(count == 30)
    }
    await #expect(throws: EngineError.shutDown) { _ = try await engine.outcome(of: request([1])) }
    await engine.shutDown()

    let hasty = try makeEngine(try configure(poolTokens: 8192))
    let cut = hasty.generate(try request([1], maxTokens: 4000))
    await hasty.shutDown(drain: false)
    var reason: FinishReason?
    for try await event in cut { if case .finished(let completion) = event { reason = completion.reason } }
    #expect(reason == .cancelled)
  }

  @Test func higherPriorityGoesFirst() async throws {
    let gate = Gate()
    let engine = try makeEngine(gate: gate, try configure(poolTokens: 256, running: 1))
    var first = try request(prompt(0, length: 8), maxTokens: 20)
    first.priority = 5
    let running = engine.generate(first)
    try await gate.reached()
    let low = engine.generate(try request(prompt(1, length: 8), maxTokens: 10))
    var urgent = try request(prompt(2, length: 8), maxTokens: 4)
    urgent.priority = 5
    let high = engine.generate(urgent)
    gate.open()
    func times(_ stream: AsyncThrowingStream<GenerationEvent, any Error>) async throws -> [ContinuousClock.Instant] {
      var times: [ContinuousClock.Instant] = []
      for try await event in stream { if case .token(let token) = event { times.append(token.time) } }
      return times
    }
    let all = [try await times(running), try await times(high), try await times(low)]
    // One after the other, not in each other's way.
    #expect(all.map(\.count) == [20, 4, 10])
    #expect(all.flatMap(\.self) == all.flatMap(\.self).sorted())
  }

  @Test func highPriorityDisplacesLow() async throws {
    let engine = try makeEngine(try configure(poolTokens: 256))
    let low = engine.generate(try request(prompt(1, length: 100), maxTokens: 150))
    #expect(try await eventually(engine) { $0.generatedTokens > 0 })
    var urgent = try request(prompt(2, length: 150), maxTokens: 20)
    urgent.priority = 1
    #expect(try await engine.outcome(of: urgent).tokens.count == 20)
    var usage = Usage()
    for try await event in low { if case .finished(let completion) = event { usage = completion.usage } }
    #expect(usage.completionTokens == 150)
    try await engine.checkIntegrity()
  }

  @Test func highPriorityTakesASlot() async throws {
    let long = try request(prompt(1, length: 30), maxTokens: 20)
    let expected = try await makeEngine(try configure()).outcome(of: long)
    let gate = Gate()
    let engine = try makeEngine(gate: gate, try configure(running: 1))
    let low = engine.generate(long)
    try await gate.reached()
    // One of equal priority waits for the slot; one of higher priority gets it.
    var waiting = try request(prompt(2, length: 20), maxTokens: 4)
    let patient = engine.generate(waiting)
    waiting.priority = 1
    let urgent = engine.generate(waiting)
    gate.open()
    func collect(
      _ stream: AsyncThrowingStream<GenerationEvent, any Error>
    ) async throws -> (tokens: [GeneratedToken], preemptions: Int) {
      var (tokens, preemptions): ([GeneratedToken], Int) = ([], 0)
      for try await event in stream {
        switch event {
        case .token(let token): tokens.append(token)
        case .finished(let completion): preemptions = completion.usage.preemptions
        }
      }
      return (tokens, preemptions)
    }
    let (first, second, third) = (try await collect(urgent), try await collect(low), try await collect(patient))
    #expect(second.tokens.map(\.id) == expected.tokens)
    #expect(second.preemptions == 1)
    let ends = [first, second, third].compactMap(\.tokens.last?.time)
    #expect(ends.count == 3 && ends == ends.sorted())
    try await engine.checkIntegrity()
  }

  @Test func endsAtEndAndStopTokens() async throws {
    let engine = try makeEngine(try configure())
    let free = try await engine.outcome(of: request([3, 1, 4], maxTokens: 40)).tokens
    let marker = try #require(free.indices.first { $0 > 3 && free.firstIndex(of: free[$0]) == $0 })
    let ending = try makeEngine(endTokens: [free[marker]], try configure())
    let ended = try await ending.outcome(of: request([3, 1, 4], maxTokens: 40))
    #expect(ended.tokens == Array(free[...marker]) && ended.reason == .stop)
    let ignoring = Request(tokens: [3, 1, 4], sampling: try SamplingParameters(ignoreEOS: true, maxTokens: 40))
    #expect(try await ending.outcome(of: ignoring).tokens == free)
    let stopping = Request(
      tokens: [3, 1, 4], sampling: try SamplingParameters(stopTokenIDs: [free[marker]], maxTokens: 40))
    #expect(try await engine.outcome(of: stopping).tokens == ended.tokens)
    let patient = Request(tokens: [3, 1, 4], sampling: try SamplingParameters(maxTokens: 40, minTokens: marker + 2))
    #expect(try await ending.outcome(of: patient).tokens.count >= marker + 2)
    let filling = Request(tokens: [3, 1, 4], sampling: try SamplingParameters(maxTokens: 0))
    #expect(try await engine.outcome(of: filling) == Outcome(reason: .length))
  }

  @Test func nobodyStarves() async throws {
    // Long prompts that fill the pool among a stream of short ones, under the policy that prefers cached prefixes.
    let engine = try makeEngine(try configure(poolTokens: 256, running: 8, policy: .longestPrefix))
    var requests = try (0..<60).map { try request(prompt(1, length: 20) + [Int32($0 % 64)], maxTokens: 10) }
    requests.insert(try request(prompt(7, length: 200), maxTokens: 50), at: 3)
    requests.insert(try request(prompt(8, length: 150), maxTokens: 100), at: 4)
    let outcomes = try await engine.outcomes(ofAll: requests)
    #expect(zip(outcomes, requests).allSatisfy { $0.tokens.count == $1.sampling.maxTokens })
    try await engine.checkIntegrity()
  }
}
