import KVQuantization
import PagedCache
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

@Suite struct SavedPrefixTests {
  private let tokens = (0..<37).map { Int32($0 * 11) }

  private func path(_ name: String) -> String { "/tmp/nibble-prefix-\(getpid())-\(name)" }

  private func filledCache(recipe: KVRecipe = .nvfp4) throws -> CacheManager {
    let cache = try makeCache(pageCount: 8, recipe: recipe)
    var table = PageTable()
    try cache.reserve(&table, tokenCount: tokens.count)
    FakeStore.store(cache, table, tokens: tokens, from: 0, count: tokens.count)
    cache.advance(&table, by: tokens.count)
    cache.finish(&table, tokens: tokens)
    return cache
  }

  private func identity(_ cache: CacheManager, model: String = "tiny", arithmetic: String = "cpu-v2") -> CacheIdentity {
    CacheIdentity(model: model, arithmetic: arithmetic, pool: cache.pool)
  }

  private func save(_ name: String, recipe: KVRecipe = .nvfp4) throws -> (cache: CacheManager, path: String) {
    let cache = try filledCache(recipe: recipe)
    let saved = try #require(try cache.savedPrefix(of: tokens))
    try saved.write(to: path(name), identity: identity(cache))
    return (cache, path(name))
  }

  private func load(
    _ cache: CacheManager, _ path: String, model: String = "tiny", arithmetic: String = "cpu-v2"
  ) throws -> SavedPrefix {
    try SavedPrefix.read(
      from: path, expecting: identity(cache, model: model, arithmetic: arithmetic), pageSize: cache.pageSize,
      pageBytes: cache.pool.pageBytes)
  }

  @Test(arguments: KVRecipe.allCases) func comesBackAsItWas(recipe: KVRecipe) throws {
    let (_, file) = try save("round-\(recipe.name)", recipe: recipe)
    defer { unlink(file) }
    let other = try makeCache(pageCount: 8, recipe: recipe)
    try other.adopt(try load(other, file))
    try other.checkIntegrity(tables: [])
    let table = try other.makeTable(matching: tokens + [1], limit: tokens.count + 1)
    #expect(table.length == tokens.count)
    #expect(access(file + ".partial-\(getpid())", F_OK) != 0, "no temporary file is left")
    #expect(FakeStore.wrongTokens(other, table, tokens: tokens) == 0)
  }

  @Test func refusesForeignAndDamagedFiles() throws {
    let (cache, file) = try save("damage")
    defer { unlink(file) }
    #expect(throws: PagedCacheError.self) { try load(cache, path("missing")) }
    #expect {
      try load(cache, file, model: "other")
    } throws: {
      guard case PagedCacheError.identityMismatch(_, "model", "other", "tiny") = $0 else { return false }
      return true
    }
    #expect {
      try load(cache, file, arithmetic: "cpu-v3")
    } throws: {
      guard case PagedCacheError.identityMismatch(_, "arithmetic", "cpu-v3", "cpu-v2") = $0 else { return false }
      return true
    }
    let mxfp4 = try makeCache(pageCount: 8, recipe: .mxfp4)
    #expect {
      try load(mxfp4, file)
    } throws: {
      guard case PagedCacheError.identityMismatch(_, "kv_cache_dtype_k", "mxfp4", "nvfp4") = $0 else { return false }
      return true
    }
    let bytes = try readBytes(file)
    var random = SplitMix(seed: 3)
    for trial in 0..<400 {
      var changed = bytes
      if trial % 2 == 0 {
        changed.removeLast(Int.random(in: 1...bytes.count, using: &random))
      } else {
        let limit = trial % 4 == 1 ? 60 : bytes.count
        changed[Int.random(in: 0..<limit, using: &random)] ^= UInt8.random(in: 1...255, using: &random)
      }
      try writeFile(changed, to: path("changed"))
      #expect(throws: PagedCacheError.self, "trial \(trial)") { try load(cache, path("changed")) }
    }
    unlink(path("changed"))
    try cache.checkIntegrity(tables: [])
  }

  @Test func aFullDiskLeavesNothingBehind() throws {
    let cache = try filledCache()
    let saved = try #require(try cache.savedPrefix(of: tokens))
    // The temporary file is a disk that is full.
    let (file, partial) = (path("full"), path("full") + ".partial-\(getpid())")
    symlink("/dev/full", partial)
    #expect {
      try saved.write(to: file, identity: identity(cache))
    } throws: {
      guard case PagedCacheError.fileFailed("write", _, _) = $0 else { return false }
      return true
    }
    for name in [file, partial] { #expect(unlink(name) != 0 && errno == ENOENT, "\(name) is left") }
    #expect {
      try saved.write(to: "/dev/full", identity: identity(cache))
    } throws: {
      guard case PagedCacheError.fileFailed("write", "/dev/full", _) = $0 else { return false }
      return true
    }
    #expect(throws: PagedCacheError.self) {
      try saved.write(to: "/nonexistent-folder/prefix", identity: identity(cache))
    }
  }

  /// A rename would take away what is no regular file.
  @Test func linksAreWrittenThrough() throws {
    let (cache, file) = try save("target")
    defer { unlink(file) }
    let link = path("link")
    symlink(file, link)
    defer { unlink(link) }
    let saved = try #require(try cache.savedPrefix(of: Array(tokens.prefix(5))))
    try saved.write(to: link, identity: identity(cache))
    #expect(try load(cache, file).tokens == Array(tokens.prefix(5)))
    var status = stat()
    #expect(lstat(link, &status) == 0 && (status.st_mode & S_IFMT) == S_IFLNK)
  }

  @Test func onlyWhatIsCachedCanBeSaved() throws {
    let cache = try filledCache()
    #expect(try cache.savedPrefix(of: tokens + [5]) == nil)
    #expect(try cache.savedPrefix(of: []) == nil)
    #expect(try cache.savedPrefix(of: Array(tokens.prefix(20)))?.tokens.count == 20)
  }

  /// However many prompts started beside it since: more than a search for the closest page looks at.
  @Test func anOldPromptIsSavedAmongManyNewerOnes() throws {
    let cache = try makeCache(pageCount: 400)
    let prompts = (0..<390).map { first in [Int32(first / 100)] + (1..<16).map { Int32(first * $0) } }
    for prompt in prompts {
      var table = PageTable()
      try cache.reserve(&table, tokenCount: prompt.count)
      FakeStore.store(cache, table, tokens: prompt, from: 0, count: prompt.count)
      cache.advance(&table, by: prompt.count)
      cache.finish(&table, tokens: prompt)
    }
    let other = try makeCache(pageCount: 400)
    for prompt in prompts { try other.adopt(try #require(try cache.savedPrefix(of: prompt))) }
    for prompt in prompts {
      var table = try other.makeTable(matching: prompt, limit: prompt.count)
      #expect(FakeStore.wrongTokens(other, table, tokens: prompt) == 0, "of \(prompt)")
      other.release(&table)
    }
  }

  /// The last page of what is saved may be one that others filled before, or whose sequence went on: no byte of theirs leaves with
  /// it, in any recipe, wherever the prefix ends.
  @Test(arguments: KVRecipe.allCases) func nothingOfOthersIsSaved(recipe: KVRecipe) throws {
    let layout = try MHALayout(kvHeadCount: 2, headDimension: 96, pageSize: 48, recipeK: .nvfp4, recipeV: recipe)
    let pool = try PagePool(layout: .mha(layout), layerCount: 2, pageCount: 2, scales: [.one, .one])
    let cache = CacheManager(pool: pool)
    memset(pool.base, 0xAA, pool.byteCount)
    let tokens = (0..<41).map { Int32($0) }
    var table = PageTable()
    try cache.reserve(&table, tokenCount: tokens.count)
    FakeStore.store(cache, table, tokens: tokens, from: 0, count: tokens.count)
    cache.advance(&table, by: tokens.count)
    cache.finish(&table, tokens: tokens)
    for count in [1, 2, 15, 16, 17, 31, 32, 33, 40, 41] {
      let saved = try #require(try cache.savedPrefix(of: Array(tokens.prefix(count))))
      let words = FakeStore.chain(tokens, upTo: count)
      var page = saved.contents
      try page.withUnsafeMutableBytes { bytes in
        let page = try #require(bytes.baseAddress)
        for slot in 0..<48 {
          if slot < count {
            #expect(FakeStore.holds(cache, page: page, slot: slot, word: words[slot]), "row \(slot) of \(count)")
          } else {
            #expect(FakeStore.isBlank(cache, page: page, slot: slot), "row \(slot) of \(count)")
          }
        }
      }
    }
    // The page in the pool is as it was.
    var whole = try cache.makeTable(matching: tokens, limit: tokens.count)
    #expect(FakeStore.wrongTokens(cache, whole, tokens: tokens) == 0)
    cache.release(&whole)
  }

  /// Rows between two others of the same group go, in one page and across two.
  @Test(arguments: KVRecipe.allCases) func erasingLeavesTheNeighbours(recipe: KVRecipe) throws {
    let cache = try makeCache(pageCount: 8, recipe: recipe)
    for range in [3..<4, 3..<9, 0..<16, 5..<37, 16..<32, 30..<37] {
      var table = PageTable()
      try cache.reserve(&table, tokenCount: tokens.count)
      FakeStore.store(cache, table, tokens: tokens, from: 0, count: tokens.count)
      cache.advance(&table, by: tokens.count)
      cache.pool.erase(range, pages: table.pages)
      #expect(FakeStore.wrongTokens(cache, table, tokens: tokens) == range.count)
      for token in range {
        let page = cache.pool.record(page: Int(table.pages[token / 16]), layer: 0)
        #expect(FakeStore.isBlank(cache, page: page, slot: token % 16))
      }
      cache.release(&table)
    }
  }
}
