/// Whole pages over all pools. Outside them a page is its bytes in `pool`, then those in `draftPool`.
extension CacheManager {
  private var pools: [PagePool] { [pool] + (draftPool.map { [$0] } ?? []) }

  /// Bytes of one page over all layers, the draft layers' included.
  public var pageBytes: Int { pool.pageBytes + (draftPool?.pageBytes ?? 0) }

  func copyPage(_ source: Int32, to target: Int32) {
    for pool in pools { pool.copyPage(Int(source), to: Int(target)) }
  }

  /// - Parameter memory: `pageBytes` long.
  func read(_ page: Int32, into memory: UnsafeMutableRawBufferPointer) {
    var start = 0
    for pool in pools {
      let bytes = UnsafeRawBufferPointer(pool.bytes(ofPage: Int(page)))
      UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + bytes.count]).copyMemory(from: bytes)
      start += bytes.count
    }
  }

  /// - Parameter memory: `pageBytes` long.
  func write(_ page: Int32, from memory: UnsafeRawBufferPointer) {
    var start = 0
    for pool in pools {
      let bytes = pool.bytes(ofPage: Int(page))
      bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[start..<start + bytes.count]))
      start += bytes.count
    }
  }

  /// `PagePool.erase` of rows of a page outside the pools.
  func erase(rows: Range<Int>, ofPageAt memory: UnsafeMutableRawBufferPointer) {
    var start = 0
    for pool in pools {
      pool.erase(
        rows: rows, ofPageAt: UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + pool.pageBytes]))
      start += pool.pageBytes
    }
  }

  /// Zeroes the rows of positions in all layers: nothing is left of tokens that were tried and rejected.
  /// - Parameter pages: the page table of the sequence; it covers `positions`.
  public func erase(_ positions: Range<Int>, pages: some RandomAccessCollection<Int32>) {
    for pool in pools { pool.erase(positions, pages: pages) }
  }
}
