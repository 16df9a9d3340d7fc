import Engine
import TestSupport
import Testing

/// The promises with real models: tokens and logits of a request are the same bits whatever surrounds it.
@Suite struct PromiseGridTests {
  @Test(arguments: PromiseCell.all) func aRequestIsItself(cell: PromiseCell) async throws {
    let (probes, others) = (try cell.probes(), try cell.others(32))
    let expected = try await cell.quietOutcomes()
    #expect(expected.allSatisfy { $0.tokens.count == 10 && $0.digests.count == 10 && $0.reason == .length })
    #expect(Set(expected.map(\.digests)).count == probes.count)

    // In a batch with 32 others; then once more with all prompts cached. Two threads, not one.
    let busy = try cell.engine(chunk: 100)
    let cold = try await busy.outcomes(ofAll: others + probes)
    #expect(Array(cold.suffix(probes.count)) == expected, "in a batch")
    let warm = try await busy.outcomes(ofAll: probes + others)
    #expect(Array(warm.prefix(probes.count)) == expected, "warm prefix cache")
    #expect(busy.statistics().peakRunningRequests > 16)
    #expect(busy.statistics().cachedPromptTokens >= probes.reduce(0) { $0 + $1.promptTokens.count - 1 })
    await busy.shutDown()

    for (chunk, count) in [(1, 1), (7, probes.count)] {
      let engine = try cell.engine(chunk: chunk)
      let outcomes = try await engine.outcomes(ofAll: Array(probes.prefix(count)))
      #expect(outcomes == Array(expected.prefix(count)), "chunk \(chunk)")
      await engine.shutDown()
    }
  }

  @Test(arguments: PromiseCell.all) func preemptionChangesNothing(cell: PromiseCell) async throws {
    let forked = try cell.forked()
    let quiet = try cell.engine(chunk: 4096, threads: 1, sharesPrefixes: false)
    let expected = try await quiet.outcomes(of: forked)
    #expect(Set(expected.map(\.tokens)).count > 1)
    await quiet.shutDown()
    // Seven pages hold the prompt and a page of each choice; each needs another one. They are computed again, or swapped.
    for (swap, sharesPrefixes) in [(0, true), (0, false), (1 << 24, true)] {
      let engine = try cell.engine(poolTokens: 112, chunk: 24, swap: swap, sharesPrefixes: sharesPrefixes)
      #expect(try await engine.outcomes(of: forked) == expected, "swap space \(swap), sharing \(sharesPrefixes)")
      #expect(engine.statistics().preemptions > 0)
      #expect((engine.statistics().swapOuts > 0) == (swap > 0))
      await engine.shutDown()
    }
  }

  /// A prompt saved in one process and loaded in another gives what the first process gives.
  @Test func aSavedPromptIsItselfInAnotherProcess() async throws {
    let folder = try TemporaryFolder()
    var outcomes: [[Outcome]] = []
    for (index, cell) in PromiseCell.all.enumerated() {
      let engine = try cell.engine()
      for (place, probe) in try cell.probes().enumerated() {
        try await engine.save(prefix: probe.prompt, to: folder.file("\(index)-\(place)"))
      }
      await engine.shutDown()
      outcomes.append(try await cell.quietOutcomes())
    }
    let tokens = outcomes.map { $0.map(\.tokens) }
    let digests = outcomes.map { $0.map(\.digests) }
    await #expect(processExitsWith: .success) {
      [folder = folder.path as String, expected = tokens as [[[Int32]]], digests = digests as [[[UInt64]]]] in
      for (index, cell) in PromiseCell.all.enumerated() {
        // One prompt's pages at a time, so that no other can help.
        for (place, probe) in try cell.probes().enumerated() {
          let engine = try cell.engine(chunk: 7)
          let tokens = try await engine.load(from: "\(folder)/\(index)-\(place)")
          let outcome = try await engine.outcome(of: probe)
          #expect(outcome.tokens == expected[index][place], "\(cell.testDescription), probe \(place)")
          #expect(outcome.digests == digests[index][place], "\(cell.testDescription), probe \(place)")
          #expect(engine.statistics().cachedPromptTokens == tokens.count - 1)
          #expect(probe.prompt == .tokens(tokens))
          await engine.shutDown()
        }
      }
    }
    withExtendedLifetime(folder) {}
  }
}
