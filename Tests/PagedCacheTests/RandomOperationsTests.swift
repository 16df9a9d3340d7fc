import PagedCache
import TestSupport
import Testing

/// Random sequences of everything that can happen to a cache, with the books and every stored byte checked on the way.
@Suite struct RandomOperationsTests {
  private struct Live {
    var tokens: [Int32]
    var table: PageTable
  }

  private struct Away {
    var tokens: [Int32]
    var swapped: SwappedTable
  }

  #if DEBUG
    static let operationCount = 4_000
  #else
    static let operationCount = 100_000
  #endif

  @Test(arguments: [UInt64(1), 2]) func booksBalanceAfterEveryOperation(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let cache = try makeCache(pageCount: 14, swapPages: 8)
    var live: [Live] = []
    var away: [Away] = []
    var saved: [SavedPrefix] = []
    var refused = 0

    for step in 0..<Self.operationCount / 2 {
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<20 where live.count < 6:  // a new sequence, often with a known beginning
        let prompt = Self.prompt(&random)
        do {
          let table = try cache.makeTable(
            matching: prompt, limit: prompt.count - 1, reserving: prompt.count, headroom: live.count)
          live.append(Live(tokens: prompt, table: table))
        } catch { refused += 1 }
      case 20..<60 where !live.isEmpty:  // a step: store what is pending, perhaps in part, then sample one token
        let index = Int.random(in: 0..<live.count, using: &random)
        let pending = live[index].tokens.count - live[index].table.length
        let count = Int.random(in: 1...pending, using: &random)
        let start = live[index].table.length
        do { try cache.reserve(&live[index].table, tokenCount: start + count) } catch {
          refused += 1
          break
        }
        FakeStore.store(cache, live[index].table, tokens: live[index].tokens, from: start, count: count)
        cache.advance(&live[index].table, by: count)
        if Bool.random(using: &random) { cache.publish(&live[index].table, tokens: live[index].tokens) }
        if count == pending { live[index].tokens.append(Int32.random(in: 0..<3, using: &random)) }
      case 60..<68 where !live.isEmpty && live.count < 6:  // fork
        let parent = live[Int.random(in: 0..<live.count, using: &random)]
        live.append(Live(tokens: parent.tokens, table: cache.fork(parent.table)))
      case 68..<78 where !live.isEmpty:  // finish
        var sequence = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        cache.finish(&sequence.table, tokens: sequence.tokens)
      case 78..<84 where !live.isEmpty:  // cancel
        var sequence = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        cache.release(&sequence.table)
      case 84..<89 where !live.isEmpty:  // preempt by swap
        let index = Int.random(in: 0..<live.count, using: &random)
        guard let swapped = cache.swapOut(live[index].table) else { break }
        away.append(Away(tokens: live[index].tokens, swapped: swapped))
        cache.finish(&live[index].table, tokens: live[index].tokens)
        live.remove(at: index)
      case 89..<93 where !away.isEmpty:  // resume, or give up
        let index = Int.random(in: 0..<away.count, using: &random)
        if Bool.random(using: &random) {
          guard let table = try? cache.swapIn(&away[index].swapped, tokens: away[index].tokens) else { break }
          live.append(Live(tokens: away[index].tokens, table: table))
        } else {
          cache.discard(&away[index].swapped)
        }
        away.remove(at: index)
      case 93..<95:  // save
        let prompt = Self.prompt(&random)
        let length = cache.cachedPrefixLength(of: prompt, limit: prompt.count)
        if let copy = try cache.savedPrefix(of: Array(prompt.prefix(length))) { saved = [copy] + saved.prefix(2) }
      case 95..<97 where !saved.isEmpty:  // load
        try? cache.adopt(saved[Int.random(in: 0..<saved.count, using: &random)])
      case 97: if step % 10 == 0 { cache.evictAll() }
      default: break
      }
      try cache.checkIntegrity(tables: live.map(\.table), swapped: away.map(\.swapped))
      for sequence in live {
        #expect(FakeStore.wrongTokens(cache, sequence.table, tokens: sequence.tokens) == 0, "step \(step)")
      }
    }
    for index in live.indices { cache.release(&live[index].table) }
    for index in away.indices { cache.discard(&away[index].swapped) }
    cache.evictAll()
    #expect(cache.allocator.freeCount == 14)
    // The test must reach its corners.
    #expect(refused > 0)
    #expect(cache.tree.evictedCount > 0)
    #expect(cache.copiedPageCount > 0)
  }

  /// Few distinct tokens and lengths around page borders, so that prompts share much and part everywhere.
  private static func prompt(_ random: inout SplitMix) -> [Int32] {
    let length = [1, 5, 15, 16, 17, 31, 32, 33, 40, 64, 70].randomElement(using: &random) ?? 1
    let parting = Int.random(in: 0...length, using: &random)
    return (0..<length).map { $0 < parting ? Int32($0 % 5) : Int32.random(in: 0..<3, using: &random) }
  }
}
