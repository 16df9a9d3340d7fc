import KVQuantization
import TestSupport
import Testing

/// docs/kv-cache.md shows what the code does: its worked blocks, tables and figures are made here and must stand in the page as
/// they are. `NIBBLE_UPDATE_DOCS=1 swift test --filter DocumentationTests` writes them into it.
@Suite struct DocumentationTests {
  static let sections: [(name: String, make: @Sendable () throws -> String)] = [
    ("recipes", { KVRecipe.table(markdown: true) }),
    ("worked nvfp4", { try WorkedBlock.nvfp4() }),
    ("worked nvfp4_4over6", { try WorkedBlock.fourOverSix() }),
    ("worked fp4_mx_block16", { try WorkedBlock.mxBlock16() }),
    ("worked mxfp4", { try WorkedBlock.mxfp4() }),
    ("worked fp8_e4m3", { try WorkedBlock.fp8() }),
    ("offsets", { try RecordPicture.offsets() }),
    ("interleaving", { try RecordPicture.interleaving() }),
    ("sizes", { try ModelSizes.table() }),
    ("gate", { GateTable.markdown() }),
    ("errors", { try ErrorFigures.tables() }),
  ]

  @Test func generatedSectionsStandInThePage() throws {
    var page = try GeneratedPage("kv-cache.md")
    for section in Self.sections {
      let made = try section.make()
      let found = try #require(page.section(section.name), "the page has no section '\(section.name)'")
      if GeneratedPage.isUpdating {
        page.replace(section.name, with: made)
      } else {
        #expect(found == made, "section '\(section.name)' is out of date: NIBBLE_UPDATE_DOCS=1 swift test")
      }
    }
    if GeneratedPage.isUpdating { try page.write() }
  }

  /// The sizes that the format definition lists.
  @Test func bytesPerTokenAreTheDefinitions() throws {
    let expected: [(String, [KVRecipe: Int])] = [
      ("Qwen3-235B-A22B", [.bf16: 192_512, .fp8E4M3: 96_256, .nvfp4: 54_144, .fp4MXBlock16: 54_144, .mxfp4: 51_136]),
      ("Qwen3-32B", [.bf16: 262_144, .fp8E4M3: 131_072, .nvfp4: 73_728, .fp4MXBlock16: 73_728, .mxfp4: 69_632]),
      ("Qwen3.5-class hybrid", [.bf16: 65_536, .fp8E4M3: 32_768, .nvfp4: 18_432, .mxfp4: 17_408]),
      ("DeepSeek-R1", [.bf16: 70_272, .fp8E4M3: 35_136, .nvfp4: 19_764]),
    ]
    for (name, sizes) in expected {
      let model = try #require(ModelSizes.models.first { $0.name == name })
      for (recipe, bytes) in sizes { #expect(try model.bytesPerToken(recipe, rope: recipe) == bytes) }
    }
    let deepSeek = try #require(ModelSizes.models.first { $0.name == "DeepSeek-R1" })
    #expect(try deepSeek.bytesPerToken(.nvfp4, rope: .bf16) == 25_376)
  }
}
