import CSIMD
import KVQuantization
import PagedCache
import TestSupport

/// A cache of small pages: 16 tokens, two layers.
func makeCache(
  pageCount: Int, swapPages: Int = 0, recipe: KVRecipe = .nvfp4, sharesPrefixes: Bool = true
) throws -> CacheManager {
  let layout = try MHALayout(kvHeadCount: 1, headDimension: 32, pageSize: 16, recipeK: recipe, recipeV: recipe)
  let pool = try PagePool(layout: .mha(layout), layerCount: 2, pageCount: pageCount, scales: [.one, .one])
  let swap = swapPages > 0 ? try SwapSpace(byteCount: swapPages * pool.pageBytes, pageBytes: pool.pageBytes) : nil
  return CacheManager(pool: pool, swap: swap, sharesPrefixes: sharesPrefixes)
}

/// What a model would do, in a form that can be checked: it stores at each token rows that depend on all tokens up to it.
enum FakeStore {
  static func chain(_ tokens: [Int32], upTo count: Int) -> [UInt32] {
    var hash: UInt32 = 2_166_136_261
    return tokens.prefix(count).map { token in
      hash = (hash ^ UInt32(bitPattern: token)) &* 16_777_619
      hash ^= hash >> 15
      return hash
    }
  }

  /// A canonical row of a token whose every byte tells token, layer, region and place.
  private static func row(_ word: UInt32, layer: Int, region: Int, count: Int) -> [UInt8] {
    var random = SplitMix(seed: UInt64(word) << 8 | UInt64(layer * 16 + region))
    return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  /// Calls `body` with each layer's and region's C view of a token's slot, and the row that belongs there.
  private static func forEachRow(
    _ cache: CacheManager, page: UnsafeMutableRawPointer, word: UInt32, _ body: (inout nb_region, [UInt8], Int) -> Void
  ) {
    for layer in 0..<cache.pool.layerCount {
      for (index, region) in cache.pool.regions.enumerated() {
        var view = nb_region(region, record: page + layer * cache.pool.recordBytes)
        let codeBytes = region.recipe.codeBytes(dimension: region.dimension)
        body(
          &view, row(word, layer: layer, region: index, count: region.recipe.rowBytes(dimension: region.dimension)),
          codeBytes)
      }
    }
  }

  static func store(_ cache: CacheManager, _ table: PageTable, tokens: [Int32], from start: Int, count: Int) {
    let words = chain(tokens, upTo: start + count)
    for token in start..<start + count {
      let page = cache.pool.record(page: Int(table.pages[token / cache.pageSize]), layer: 0)
      forEachRow(cache, page: page, word: words[token]) { view, row, codeBytes in
        row.withUnsafeBufferPointer { row in
          guard let codes = row.baseAddress else { return }
          nb_region_scatter_row(&view, Int32(token % cache.pageSize), codes, codes + codeBytes)
        }
      }
    }
  }

  /// Whether the slot of a page, in the pool or a copy of it, holds exactly the rows of a token.
  static func holds(_ cache: CacheManager, page: UnsafeMutableRawPointer, slot: Int, word: UInt32) -> Bool {
    var isRight = true
    forEachRow(cache, page: page, word: word) { view, row, codeBytes in
      isRight = isRight && read(&view, slot: slot, count: row.count, codeBytes: codeBytes) == row
    }
    return isRight
  }

  /// Whether a slot of a page is zero in all layers and regions.
  static func isBlank(_ cache: CacheManager, page: UnsafeMutableRawPointer, slot: Int) -> Bool {
    var isBlank = true
    forEachRow(cache, page: page, word: 0) { view, row, codeBytes in
      let found = read(&view, slot: slot, count: row.count, codeBytes: codeBytes)
      isBlank = isBlank && found.allSatisfy { $0 == 0 }
    }
    return isBlank
  }

  private static func read(_ view: inout nb_region, slot: Int, count: Int, codeBytes: Int) -> [UInt8] {
    var row = [UInt8](repeating: 0xFF, count: count)
    row.withUnsafeMutableBufferPointer { row in
      guard let codes = row.baseAddress else { return }
      nb_region_gather_row(&view, Int32(slot), codes, codes + codeBytes)
    }
    return row
  }

  /// Tokens of the table whose stored rows are wrong.
  static func wrongTokens(_ cache: CacheManager, _ table: PageTable, tokens: [Int32]) -> Int {
    let words = chain(tokens, upTo: table.length)
    return (0..<table.length).count { token in
      let page = cache.pool.record(page: Int(table.pages[token / cache.pageSize]), layer: 0)
      return !holds(cache, page: page, slot: token % cache.pageSize, word: words[token])
    }
  }
}
