import CSIMD
import Checkpoints
import JSON
import KVQuantization
import TestSupport
import Testing

@Suite struct GoldenFormatsTests {
  static let path = Repository.resources(of: "KVQuantizationTests") + "/golden_formats.json"

  @Test func everyLevelMatchesTheGoldenFile() throws {
    let golden = try GoldenFormats(contentsOf: Self.path)
    #expect(golden.cases.count == 256)
    #expect(golden.cases.allSatisfy { $0.expectations.count == 5 })
    for codec in LevelTests.levels.map(GoldenFormats.Codec.kernels) + [.specification] {
      let report = try golden.verify(codec)
      #expect(report.caseCount == 256)
      #expect(report.mismatchCount == 0, "\(codec): \(report.firstMismatch ?? "")")
    }
  }

  /// One wrong digit in the codes, the scales or the decoded values of a recipe is one mismatch.
  @Test(arguments: ["codes", "scales", "decoded"])
  func aChangedDigitIsFound(key: String) throws {
    var document = try small()
    var expectation = try #require(document["nvfp4"]?.objectValue)
    let text = try #require(expectation[key]?.stringValue)
    expectation[key] = .string((text.first == "1" ? "2" : "1") + text.dropFirst())
    document["nvfp4"] = .object(expectation)
    let golden = try GoldenFormats(["cases": [.object(document)]], path: "test")
    for codec in [GoldenFormats.Codec.kernels(nb_level_active()), .specification] {
      let report = try golden.verify(codec)
      #expect(report.mismatchCount == 1)
      #expect(report.firstMismatch?.hasPrefix("case 0, nvfp4: ") == true)
    }
  }

  @Test func malformedFilesAreErrorsThatSayWhere() throws {
    let good = try small()
    #expect(throws: Never.self) { try GoldenFormats(["cases": [.object(good)]], path: "test") }
    func expectError(_ words: String, _ change: (inout JSONObject) -> Void) {
      var object = good
      change(&object)
      do {
        _ = try GoldenFormats(["cases": [.object(object)]], path: "test")
        Issue.record("no error; expected one about \(words)")
      } catch {
        #expect(error.description.contains(words), "\(error)")
      }
    }
    expectError("cases[0].x") { $0["x"] = "3f80" }
    expectError("cases[0].x") { $0["x"] = "" }
    expectError("cases[0].x") { $0["x"] = "zz000000" }
    expectError("cases[0].x") { $0["x"] = 3 }
    expectError("cases[0].g") { $0["g"] = "00000000" }
    expectError("cases[0].g") { $0["g"] = "7fc00000" }
    expectError("fp4_mx_block16") { $0["q4_0"] = [:] }
    expectError("multiple of 16") { $0["x"] = .string(String(repeating: "3f800000", count: 8)) }
    expectError("cases[0].mxfp4.codes") { $0["mxfp4"] = ["scales": "7f", "decoded": ""] }
    expectError("cases[0].mxfp4") { $0["mxfp4"] = ["scales": "7f", "codes": "00", "decoded": "00000000"] }
    expectError("at least one recipe") { $0 = JSONObject([("x", good["x"] ?? nil), ("g", good["g"] ?? nil)]) }
    #expect(throws: CheckpointError.self) { try GoldenFormats(["cases": []], path: "test") }
    #expect(throws: CheckpointError.self) { try GoldenFormats(["cases": [3]], path: "test") }
    #expect(throws: CheckpointError.self) { try GoldenFormats(["case": []], path: "test") }
    #expect(throws: CheckpointError.self) { try GoldenFormats(contentsOf: "/nonexistent/golden.json") }
    #expect(throws: CheckpointError.self) { try GoldenFormats(contentsOf: #filePath) }
  }

  /// The first case of the shipped file, as JSON.
  private func small() throws -> JSONObject {
    try #require(try JSONValue.parse(contentsOf: Self.path)["cases"]?[0]?.objectValue)
  }
}
