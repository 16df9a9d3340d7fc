import Engine
import PagedCache
import TestSupport
import Testing

/// A request's tokens and logits don't depend on what else happens, shown with a model that notices every wrong byte.
@Suite struct PromiseTests {
  private func mix(_ seed: UInt64?) throws -> [Request] {
    try (0..<32).map { try request(prompt($0, length: 5 + $0 * 3), maxTokens: 10 + $0 % 7, seed: seed.map { $0 + 1 }) }
  }

  private func alone(_ requests: [Request]) async throws -> [Outcome] {
    var expected: [Outcome] = []
    for request in requests {
      let engine = try makeEngine(try configure(chunk: 4096, sharesPrefixes: false))
      expected.append(try await engine.outcome(of: request))
    }
    return expected
  }

  @Test(arguments: [nil, 7] as [UInt64?])
  func batchChunkAndPrefixChangeNothing(seed: UInt64?) async throws {
    let requests = try mix(seed)
    let expected = try await alone(requests)
    #expect(Set(expected.map(\.tokens)).count > 25, "the requests must differ")
    for chunk in [1, 7, 64, 1000] {
      for policy in SchedulingPolicy.allCases {
        let engine = try makeEngine(try configure(chunk: chunk, policy: policy))
        #expect(try await engine.outcomes(ofAll: requests) == expected, "cold, chunk \(chunk)")
        #expect(try await engine.outcomes(ofAll: requests.reversed()) == expected.reversed(), "warm, chunk \(chunk)")
        #expect(engine.statistics().cachedPromptTokens > 0)
        try await engine.checkIntegrity()
      }
    }
  }

  @Test(arguments: [0, 1 << 20])
  func preemptionChangesNothing(swap: Int) async throws {
    for seed in [nil, 3] as [UInt64?] {
      let requests = try (0..<16).map { try request(prompt($0, length: 5 + $0 * 3), maxTokens: 60, seed: seed) }
      let expected = try await alone(requests)
      let engine = try makeEngine(try configure(poolTokens: 320, chunk: 32, swap: swap))
      #expect(try await engine.outcomes(ofAll: requests) == expected)
      try await engine.checkIntegrity()
      let statistics = engine.statistics()
      #expect(statistics.preemptions > 0)
      #expect((statistics.swapOuts > 0) == (swap > 0))
      #expect(statistics.kvCache.activePages == 0)
      #expect(statistics.kvCache.swapSlotsUsed == 0)
    }
  }

  @Test func forksGiveWhatSeparateRequestsGive() async throws {
    var forked = try request(prompt(5, length: 37), maxTokens: 20, seed: 11)
    let engine = try makeEngine(try configure())
    let single = try await engine.outcome(of: forked)
    forked.choiceCount = 6
    let choices = try await engine.outcomes(of: forked)
    #expect(choices[0] == single)
    #expect(Set(choices.map(\.tokens)).count == 6, "each choice draws its own numbers")
    #expect(Set(choices.map { $0.digests[0] }).count == 1, "all start from the same logits")
    // The same where slots and pages are short.
    for (pool, running) in [(4096, 2), (128, 64)] {
      let small = try makeEngine(try configure(poolTokens: pool, running: running))
      #expect(try await small.outcomes(of: forked) == choices)
      try await small.checkIntegrity()
    }
  }

  @Test func aSavedPrefixChangesNothing() async throws {
    let folder = try TemporaryFolder()
    let path = folder.file("prefix")
    let ids = prompt(9, length: 75)
    let first = try makeEngine(try configure())
    let expected = try await first.outcome(of: try request(ids))
    try await first.save(prefix: .tokens(ids), to: path)
    let second = try makeEngine(try configure())
    #expect(try await second.load(from: path) == ids)
    #expect(try await second.outcome(of: try request(ids)) == expected)
    #expect(second.statistics().cachedPromptTokens == 74)
    try await second.checkIntegrity()
    let other = try makeEngine(fingerprint: "another", try configure())
    await #expect(
      throws: PagedCacheError.identityMismatch(path: path, field: "model", expected: "another", found: "fake")
    ) { try await other.load(from: path) }
  }
}
