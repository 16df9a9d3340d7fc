import CUDABackend
import KVQuantization
import PagedCache
import Testing

@Suite struct LatentRecordConverterTests {
  private struct Row: Equatable {
    let isLatent: Bool
    let token: Int
    var codes: [UInt8]
    var scales: [UInt8]
  }

  private static func layouts() throws -> [MLALayout] {
    try CUDAAttention.recipes.enumerated().flatMap { index, recipe in
      try [KVRecipe.bf16, CUDAAttention.recipes[(index + 1) % CUDAAttention.recipes.count]].map { rope in
        try MLALayout(
          latentDimension: CUDAAttention.latentDimension, ropeDimension: CUDAAttention.ropeDimension,
          pageSize: index % 2 == 0 ? 16 : 32, recipeLatent: recipe, recipeRope: rope)
      }
    }
  }

  private func rows(_ layout: MLALayout) -> [Row] {
    (0..<layout.pageSize).flatMap { token in
      [(true, layout.recipeLatent, layout.latentDimension), (false, layout.recipeRope, layout.ropeDimension)].map {
        isLatent, recipe, dimension in
        Row(
          isLatent: isLatent, token: token,
          codes: (0..<recipe.codeBytes(dimension: dimension)).map { _ in .random(in: 0...255) },
          scales: (0..<recipe.scaleBytes(dimension: dimension)).map { _ in .random(in: 0...255) })
      }
    }.shuffled()
  }

  private func gathered(_ row: Row, _ converter: LatentRecordConverter, _ record: [UInt8]) -> Row {
    var copy = row
    copy.codes = copy.codes.map { ~$0 }
    // Recipes without block scales have an empty array, which has no address.
    copy.scales = copy.scales.map { ~$0 } + [0]
    converter.gather(
      isLatent: row.isLatent, token: row.token, from: record, codes: &copy.codes, scales: &copy.scales)
    copy.scales.removeLast()
    return copy
  }

  @Test func everyBitHasOnePlaceAndOneOwner() throws {
    for layout in try Self.layouts() {
      let converter = LatentRecordConverter(layout: layout)
      var rows = rows(layout)
      var record = [UInt8](repeating: 0x5a, count: layout.bytesPerToken * layout.pageSize + 1)
      func write(_ row: Row) {
        converter.scatter(
          codes: row.codes, scales: row.scales + [0], isLatent: row.isLatent, token: row.token, into: &record)
      }
      for row in rows { write(row) }
      // Written in any order, every row is still there: no two share a bit, and together they fill the record.
      for row in rows { #expect(gathered(row, converter, record) == row) }
      #expect(record.last == 0x5a)
      #expect(rows.reduce(0) { $0 + $1.codes.count + $1.scales.count } == record.count - 1)
      // Writing one anew touches no other.
      rows[0].codes = rows[0].codes.map { ~$0 }
      rows[0].scales = rows[0].scales.map { ~$0 }
      write(rows[0])
      for row in rows { #expect(gathered(row, converter, record) == row) }
    }
  }
}
