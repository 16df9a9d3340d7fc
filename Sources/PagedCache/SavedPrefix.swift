/// A prompt's pages outside a pool: on the way to a file or from one.
public final class SavedPrefix: @unchecked Sendable {
  public let tokens: [Int32]
  public let pageBytes: Int
  /// Page after page, all layers of a page together, as in the pool. Rows beyond the last token are zero.
  let pages: UnsafeMutableRawBufferPointer

  /// - Throws: `PagedCacheError.outOfMemory`.
  init(tokens: [Int32], pageSize: Int, pageBytes: Int) throws(PagedCacheError) {
    let count = (tokens.count + pageSize - 1) / pageSize
    let (bytes, overflow) = count.multipliedReportingOverflow(by: pageBytes)
    guard !overflow, let memory = HostMemory.allocate(bytes) else { throw .outOfMemory(bytes: bytes) }
    self.tokens = tokens
    self.pageBytes = pageBytes
    pages = UnsafeMutableRawBufferPointer(start: memory, count: bytes)
  }

  deinit { HostMemory.free(pages.baseAddress) }
}

extension CacheManager {
  /// A copy of the pages of `tokens`.
  /// - Returns: nil unless all of them are cached.
  /// - Throws: `PagedCacheError.outOfMemory`.
  public func savedPrefix(of tokens: [Int32]) throws(PagedCacheError) -> SavedPrefix? {
    guard !tokens.isEmpty, cachedPrefixLength(of: tokens, limit: tokens.count) == tokens.count else { return nil }
    let saved = try SavedPrefix(tokens: tokens, pageSize: pageSize, pageBytes: pool.pageBytes)
    var count = 0
    _ = forEachCachedPage(of: tokens, limit: tokens.count) { page in
      saved.bytes(ofPage: count).copyMemory(from: UnsafeRawBufferPointer(pool.bytes(ofPage: Int(page))))
      count += 1
    }
    // The page may be another's, whose tokens go on where these end: nothing of them leaves with the file.
    if tokens.count % pageSize > 0 {
      pool.erase(rows: tokens.count % pageSize..<pageSize, ofPageAt: saved.bytes(ofPage: tokens.count / pageSize))
    }
    return saved
  }

  /// Puts a saved prefix into the prefix tree.
  /// - Throws: `PagedCacheError.outOfPages`.
  public func adopt(_ saved: SavedPrefix) throws(PagedCacheError) {
    precondition(saved.pageBytes == pool.pageBytes)
    var table = fullPages(matching: saved.tokens, limit: saved.tokens.count)
    let first = table.pages.count
    do throws(PagedCacheError) { try reserve(&table, tokenCount: saved.tokens.count) } catch {
      release(&table)
      throw error
    }
    for index in first..<pageCount(forTokens: saved.tokens.count) {
      pool.bytes(ofPage: Int(table.pages[index])).copyMemory(from: UnsafeRawBufferPointer(saved.bytes(ofPage: index)))
    }
    table.length = saved.tokens.count
    finish(&table, tokens: saved.tokens)
  }
}

extension SavedPrefix {
  /// All pages, for tests that compare caches.
  package var contents: [UInt8] { Array(pages) }

  func bytes(ofPage index: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: pages[index * pageBytes..<(index + 1) * pageBytes])
  }
}
