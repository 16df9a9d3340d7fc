import PagedCache
import Synchronization

/// What is known of the engine, and whether its books balance.
extension EngineCore {
  /// - Throws: `PagedCacheError.corrupted`.
  func checkIntegrity() throws(PagedCacheError) {
    let sequences = requests.values.flatMap(\.choices)
    try cache.checkIntegrity(tables: sequences.map(\.table), swapped: sequences.map(\.swapped))
  }

  func checkIntegrityOrStop() {
    do throws(PagedCacheError) { try checkIntegrity() } catch {
      for state in Array(requests.values) { fail(state, .stepFailed(error.description)) }
      isStopped = true
    }
  }

  func publishStatistics() {
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
    statistics.deliveryTime = delivery.time
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
