import CSIMD
import KVQuantization
import TestSupport
import Testing

/// One region over its own memory, with guard bytes behind codes and scales.
private final class TestRegion {
  let recipe: KVRecipe
  let dimension: Int
  let codeCount: Int
  let scaleCount: Int
  let bytes: UnsafeMutablePointer<UInt8>
  let total: Int
  private(set) var region: nb_region

  init(_ recipe: KVRecipe, kind: Int32, dimension: Int, pageSize: Int, fill: UInt8) {
    self.recipe = recipe
    self.dimension = dimension
    codeCount = recipe.codeBytes(dimension: dimension) * pageSize
    scaleCount = recipe.scaleBytes(dimension: dimension) * pageSize
    total = codeCount + scaleCount + 64
    bytes = .allocate(capacity: total)
    bytes.initialize(repeating: fill, count: total)
    region = nb_region(
      recipe: nb_recipe(UInt32(recipe.rawValue)), kind: kind, dimension: Int32(dimension), codes: bytes,
      scales: bytes + codeCount)
  }

  deinit { bytes.deallocate() }

  var contents: [UInt8] { Array(UnsafeBufferPointer(start: bytes, count: total)) }

  func scatter(_ token: Int, codes: [UInt8], scales: [UInt8]) {
    nb_region_scatter_row(&region, Int32(token), codes, scales)
  }

  func gather(_ token: Int) -> (codes: [UInt8], scales: [UInt8]) {
    var codes = [UInt8](repeating: 0, count: recipe.codeBytes(dimension: dimension))
    var scales = [UInt8](repeating: 0, count: recipe.scaleBytes(dimension: dimension))
    nb_region_gather_row(&region, Int32(token), &codes, &scales)
    return (codes, scales)
  }

  func store(
    _ level: nb_level, _ token: Int, row: [Float], decodeScale: Float,
    _ statistics: UnsafeMutablePointer<nb_encode_statistics>
  ) {
    nb_region_store(level, &region, Int32(token), row, decodeScale, statistics)
  }
}

private func dimensions(_ recipe: KVRecipe) -> [Int] {
  var all = [64, 80, 96, 128, 192, 256, 512, 576, 16, 48, 272, 288]
  if recipe.blockSize == nil { all += [2, 6, 70, 258] }
  return all.filter { $0 % (recipe.blockSize ?? 2) == 0 }
}

@Suite struct RecordLayoutTests {
  @Test(arguments: KVRecipe.allCases, [Int32(0), 1, 2, 3])
  func gatherReturnsWhatScatterWrote(recipe: KVRecipe, kind: Int32) {
    var random = SplitMix(seed: 1)
    for dimension in dimensions(recipe) {
      let region = TestRegion(recipe, kind: kind, dimension: dimension, pageSize: 32, fill: 0xA5)
      var rows: [(codes: [UInt8], scales: [UInt8])] = []
      for token in 0..<32 {
        let codes = (0..<recipe.codeBytes(dimension: dimension)).map { _ in UInt8.random(in: 0...255, using: &random) }
        let scales = (0..<recipe.scaleBytes(dimension: dimension)).map { _ in UInt8.random(in: 0...255, using: &random)
        }
        rows.append((codes, scales))
        region.scatter(token, codes: codes, scales: scales)
      }
      for token in 0..<32 {
        let row = region.gather(token)
        #expect(row.codes == rows[token].codes && row.scales == rows[token].scales, "\(recipe) \(dimension) \(token)")
      }
      #expect(region.contents.suffix(64).allSatisfy { $0 == 0xA5 }, "wrote past the region")
    }
  }

  /// Complementing a token's bytes changes exactly its share of the region, and the shares are disjoint.
  @Test(arguments: KVRecipe.allCases, [Int32(0), 1, 2, 3])
  func everyByteBelongsToOneToken(recipe: KVRecipe, kind: Int32) {
    for dimension in dimensions(recipe) where dimension <= 128 || dimension == 272 {
      let region = TestRegion(recipe, kind: kind, dimension: dimension, pageSize: 32, fill: 0)
      let rowBytes = recipe.rowBytes(dimension: dimension)
      var owner = [Int](repeating: -1, count: rowBytes * 32)
      for token in 0..<32 {
        let before = region.contents
        region.scatter(
          token, codes: [UInt8](repeating: 0xFF, count: recipe.codeBytes(dimension: dimension)),
          scales: [UInt8](repeating: 0xFF, count: recipe.scaleBytes(dimension: dimension)))
        let after = region.contents
        let changed = owner.indices.filter { before[$0] != after[$0] }
        #expect(changed.count == rowBytes)
        #expect(changed.allSatisfy { owner[$0] < 0 && after[$0] == 0xFF })
        for index in changed { owner[index] = token }
      }
      #expect(!owner.contains(-1))
    }
  }

  /// In both groups of a page, with numbers that aren't finite, and with factors that the vector levels leave to portable code.
  @Test(arguments: KVRecipe.allCases, [Float(0.01), 0x1p-70])
  func storeIsEncodeAndScatter(recipe: KVRecipe, decodeScale: Float) {
    var random = SplitMix(seed: 1)
    for dimension in dimensions(recipe) {
      let finite = (0..<dimension).map { _ in Float.random(in: -3...3, using: &random) }
      var row = finite
      row[dimension / 2] = .nan
      row[dimension - 1] = -.infinity
      for (kind, token) in [(Int32(0), 5), (1, 0), (1, 31), (2, 16), (3, 15)] {
        for (row, level) in supportedLevels.flatMap({ [(finite, $0), (row, $0)] }) {
          var codes = [UInt8](repeating: 0, count: recipe.codeBytes(dimension: dimension))
          var scales = [UInt8](repeating: 0, count: max(1, recipe.scaleBytes(dimension: dimension)))
          let raw = nb_recipe(UInt32(recipe.rawValue))
          var (encoded, stored) = (nb_encode_statistics(), nb_encode_statistics())
          nb_encode_row(level, raw, row, Int32(dimension), decodeScale, &codes, &scales, &encoded)
          let wanted = TestRegion(recipe, kind: kind, dimension: dimension, pageSize: 32, fill: 7)
          let found = TestRegion(recipe, kind: kind, dimension: dimension, pageSize: 32, fill: 7)
          wanted.scatter(token, codes: codes, scales: scales)
          found.store(level, token, row: row, decodeScale: decodeScale, &stored)
          #expect(wanted.contents == found.contents, "\(recipe) \(dimension) kind \(kind) token \(token)")
          #expect(EncodeStatistics(encoded) == EncodeStatistics(stored))
        }
      }
    }
  }

  /// The layout itself, which saved files and other devices rely on.
  @Test func positionsOfVersionTwo() {
    for kind in [Int32(0), 1, 2, 3] {
      let region = TestRegion(.nvfp4, kind: kind, dimension: 80, pageSize: 32, fill: 0)
      var codes = [UInt8](repeating: 0, count: 40)
      var scales = [UInt8](repeating: 0, count: 5)
      codes[4 * 3 + 1] = 0x5A
      codes[4 * 9 + 2] = 0xC9
      scales[2] = 0x77
      region.scatter(16 + 5, codes: codes, scales: scales)
      #expect(region.contents[16 * 40 + (16 * 3 + 5) * 4 + 1] == 0x5A)
      #expect(region.contents[16 * 40 + (16 * 9 + 5) * 4 + 2] == 0xC9)
      #expect(region.contents[32 * 40 + 16 * 5 + 2 * 16 + 5] == 0x77)
    }

    let value = TestRegion(.fp8E4M3, kind: 1, dimension: 64, pageSize: 32, fill: 0)
    var codes = [UInt8](repeating: 0, count: 64)
    codes[13] = 0x5A
    value.scatter(16 + 5, codes: codes, scales: [])
    #expect(value.contents[(16 + 5) * 64 + 13] == 0x5A)
  }
}
