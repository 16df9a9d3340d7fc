import Engine
import PagedCache
import TestSupport
import Testing

/// Many requests through a pool that is far too small, with clients that leave, deadlines, failing steps, forks, saves and loads
/// in between. Whoever completes gets what a quiet engine gives; nobody is lost; the books balance after every step.
@Suite struct ChaosTests {
  #if DEBUG
    static let requestCount = 150
  #else
    static let requestCount = 1500
  #endif

  private enum Fate {
    case completes
    case leaves(after: Int)
    case expires, fails
  }

  private struct Client {
    let request: Request
    let fate: Fate
  }

  private func clients(_ seed: UInt64) throws -> [Client] {
    var random = SplitMix(seed: seed)
    return try (0..<Self.requestCount).map { index in
      // Few beginnings, so that prompts share pages.
      var tokens = prompt(
        Int.random(in: 0..<6, using: &random), length: Int.random(in: 1...60, using: &random), vocabulary: 32)
      tokens += prompt(index, length: Int.random(in: 0...20, using: &random), vocabulary: 32)
      var fate = Fate.completes
      switch Int.random(in: 0..<10, using: &random) {
      case 0, 1: fate = .leaves(after: Int.random(in: 0...5, using: &random))
      case 2: fate = .expires
      case 3:
        fate = .fails
        tokens.append(63)
      default: break
      }
      var made = try request(tokens, maxTokens: Int.random(in: 1...100, using: &random), seed: index % 2 == 0 ? nil : 4)
      made.choiceCount = index % 7 == 0 ? 3 : 1
      made.priority = index % 5 == 0 ? 1 : 0
      if case .expires = fate { made.deadline = .microseconds(Int.random(in: 0...3000, using: &random)) }
      return Client(request: made, fate: fate)
    }
  }

  /// - Returns: what the client saw; nil if it left or the request failed.
  private func run(_ client: Client, on engine: Engine) async throws -> [Outcome]? {
    var outcomes = Array(repeating: Outcome(), count: client.request.choiceCount)
    var count = 0
    do {
      for try await event in engine.generate(client.request) {
        switch event {
        case .token(let token):
          outcomes[token.choice].tokens.append(token.id)
          token.logitsDigest.map { outcomes[token.choice].digests.append($0) }
        case .finished(let completion): outcomes[completion.choice].reason = completion.reason
        }
        count += 1
        if case .leaves(let after) = client.fate, count > after { return nil }
      }
    } catch EngineError.stepFailed { return nil }
    return outcomes
  }

  @Test(arguments: [(swap: 0, policy: SchedulingPolicy.fcfs), (swap: 8 << 10, policy: .longestPrefix)])
  func nobodyIsLost(swap: Int, policy: SchedulingPolicy) async throws {
    let clients = try clients(UInt64(swap + 1))
    let quiet = try makeEngine(failingToken: 63, try configure(chunk: 4096, sharesPrefixes: false))
    let engine = try makeEngine(
      failingToken: 63, try configure(poolTokens: 272, chunk: 24, running: 12, policy: policy, swap: swap))
    let folder = try TemporaryFolder()

    let seen = try await withThrowingTaskGroup(of: (Int, [Outcome]?).self) { group in
      for (index, client) in clients.enumerated() {
        group.addTask { (index, try await run(client, on: engine)) }
      }
      group.addTask {
        for index in 0..<10 {
          do {
            let file = folder.file("prefix")
            try await engine.save(prefix: .tokens(prompt(index % 6, length: 40, vocabulary: 32)), to: file)
            try await engine.load(from: file)
          } catch EngineError.notCached {}  // evicted between computing and saving
          catch PagedCacheError.outOfPages {}  // no room to load
        }
        return (-1, nil)
      }
      return try await group.reduce(into: [Int: [Outcome]]()) { if let outcomes = $1.1 { $0[$1.0] = outcomes } }
    }
    try await engine.checkIntegrity()

    var completed = 0
    for (index, client) in clients.enumerated() {
      guard case .completes = client.fate else { continue }
      // Nil where a choice drew the token that fails steps: then in both engines.
      let expected = try await run(client, on: quiet)
      #expect(seen[index] == expected, "request \(index)")
      completed += expected == nil ? 0 : 1
    }
    #expect(completed > Self.requestCount / 8)
    let statistics = engine.statistics()
    #expect(statistics.preemptions > 0)
    #expect((statistics.swapOuts > 0) == (swap > 0))
    #expect(statistics.kvCache.activePages == 0)
    #expect(statistics.kvCache.swapSlotsUsed == 0)
    #expect(engine.queuedRequestCount == 0)
    #expect(statistics.finishedRequests >= Self.requestCount)
  }
}
