/// A prompt's pages outside a pool: on the way to a file or from one.
public final class SavedPrefix: @unchecked Sendable {
  public let tokens: [Int32]
  public let pageBytes: Int
  /// Page after page, all layers of a page together as in the pool, the draft layers' behind the others. Rows beyond the last
  /// token are zero.
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
    guard let cached = cachedPages(of: tokens) else { return nil }
    let saved = try SavedPrefix(tokens: tokens, pageSize: pageSize, pageBytes: pageBytes)
    for (index, page) in cached.enumerated() { read(page, into: saved.bytes(ofPage: index)) }
    // The page may be another's, whose tokens go on where these end: nothing of them leaves with the file.
    if tokens.count % pageSize > 0 {
      erase(rows: tokens.count % pageSize..<pageSize, ofPageAt: saved.bytes(ofPage: tokens.count / pageSize))
    }
    return saved
  }

  /// The pages that hold `tokens`; nil unless all of them are cached.
  private func cachedPages(of tokens: [Int32]) -> [Int32]? {
    var pages: [Int32] = []
    let count = forEachCachedPage(of: tokens, limit: tokens.count) { pages.append($0) }
    return count == tokens.count && count > 0 ? pages : nil
  }

  /// The pages of `tokens` as they lie in the pools, other tokens' rows included, for tests; nil unless all are cached.
  package func pageContents(of tokens: [Int32]) -> [UInt8]? {
    cachedPages(of: tokens)?.flatMap { page in
      [UInt8](unsafeUninitializedCapacity: pageBytes) { buffer, count in
        read(page, into: UnsafeMutableRawBufferPointer(buffer))
        count = pageBytes
      }
    }
  }

  /// Puts a saved prefix into the prefix tree.
  /// - Throws: `PagedCacheError.outOfPages`.
  public func adopt(_ saved: SavedPrefix) throws(PagedCacheError) {
    precondition(saved.pageBytes == pageBytes)
    var table = fullPages(matching: saved.tokens, limit: saved.tokens.count)
    let first = table.pages.count
    do throws(PagedCacheError) { try reserve(&table, tokenCount: saved.tokens.count) } catch {
      release(&table)
      throw error
    }
    for index in first..<pageCount(forTokens: saved.tokens.count) {
      write(table.pages[index], from: UnsafeRawBufferPointer(saved.bytes(ofPage: index)))
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
