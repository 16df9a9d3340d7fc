/// Preempted sequences in host memory.
extension CacheManager {
  /// Copies a table's pages to the swap space. The table itself stays; the caller ends it by `finish` or `release`.
  /// - Returns: nil if there is no swap space or too little of it.
  public func swapOut(_ table: PageTable) -> SwappedTable? {
    let count = pageCount(forTokens: table.length)
    guard let swap, count > 0, swap.freeCount >= count else { return nil }
    var swapped = SwappedTable()
    swapped.length = table.length
    for page in table.pages.prefix(count) {
      guard let slot = swap.allocate() else { break }
      read(page, into: swap.bytes(ofSlot: slot))
      swapped.slots.append(slot)
    }
    return swapped
  }

  /// Brings a swapped table back: pages that are still in the prefix tree are shared, the others copied in. Ends `swapped`.
  /// - Parameters:
  ///   - tokens: the sequence's ids.
  ///   - tokenCount: tokens to reserve pages for, those in `swapped` included.
  ///   - headroom: pages that must remain available to others.
  /// - Throws: `PagedCacheError.outOfPages`; `swapped` stays as it is.
  public func swapIn(
    _ swapped: inout SwappedTable, tokens: [Int32], reserving tokenCount: Int = 0, headroom: Int = 0
  ) throws(PagedCacheError) -> PageTable {
    guard let swap else { return PageTable() }
    var table = fullPages(matching: tokens, limit: swapped.length)
    let cached = table.pages.count
    do throws(PagedCacheError) {
      try reserve(&table, tokenCount: max(tokenCount, swapped.length), headroom: headroom)
    } catch {
      release(&table)
      throw error
    }
    for index in cached..<swapped.slots.count {
      write(table.pages[index], from: UnsafeRawBufferPointer(swap.bytes(ofSlot: swapped.slots[index])))
    }
    table.length = swapped.length
    discard(&swapped)
    return table
  }

  /// Gives a swapped table's slots back.
  public func discard(_ swapped: inout SwappedTable) {
    for slot in swapped.slots { swap?.release(slot) }
    swapped = SwappedTable()
  }
}
