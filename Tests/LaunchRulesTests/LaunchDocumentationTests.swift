import LaunchRules
import TestSupport
import Testing

/// docs/check-launch.md shows what the rules answer. `NIBBLE_UPDATE_DOCS=1 swift test --filter LaunchDocumentationTests` writes it.
@Suite struct LaunchDocumentationTests {
  /// Right and wrong ones: what, the line, MLA, compute capability, the verdict.
  static let launches: [(title: String, line: String, mla: Bool, capability: Int, word: String)] = [
    (
      "GQA on a B200 with everything left to SGLang: right, and native in both phases.",
      "--kv-cache-dtype nvfp4 --page-size 64 --tp 8", false, 100, "starts"
    ),
    (
      "GQA on an H100: its default backend can't read the cache.",
      "--kv-cache-dtype fp4_mx_block16 --tp 8", false, 90, "refuses"
    ),
    (
      "DeepSeek on a B200: the decode backend of nvfp4 is for MHA.",
      "--kv-cache-dtype nvfp4 --attention-backend trtllm_mla --tp 8", true, 100, "refuses"
    ),
    (
      "GQA on an RTX PRO 6000 (SM120) with an FP8 workspace for prefill: right.",
      "--kv-cache-dtype nvfp4 --prefill-attention-backend flashinfer --decode-attention-backend trtllm_mha", false,
      120, "starts"
    ),
    (
      "Two backends that nobody tested together: it starts, with a warning.",
      "--kv-cache-dtype fp4_mx_block16 --prefill-attention-backend flashinfer --decode-attention-backend triton", false,
      90, "degrades"
    ),
  ]

  static func launchText() -> String {
    launches.map { launch in
      let context = LaunchContext(usesMLA: launch.mla, computeCapability: launch.capability)
      let words = launch.line.split(separator: " ").map(String.init)
      let verdict = SGLangCheck(version: .release0523, context: context).judge(LaunchArguments(words))
      let kind = launch.mla ? "--mla" : "--mha"
      let capability = "\(launch.capability / 10).\(launch.capability % 10)"
      return """
        \(launch.title)

        ```text
        $ nibble check-launch --engine sglang \(kind) --compute-capability \(capability) -- \(launch.line)
        \(verdict.text)
        ```

        """
    }.joined(separator: "\n")
  }

  @Test func launchesAreJudged() {
    for launch in Self.launches {
      let verdict = SGLangCheckTests.judge(launch.line, mla: launch.mla, capability: launch.capability)
      #expect(verdict.word == launch.word, "\(launch.line): \(verdict.findings)")
      #expect((verdict.alternative == nil) == (launch.word != "refuses"))
    }
  }

  @Test func thePageIsUpToDate() throws {
    var page = try GeneratedPage("check-launch.md")
    for (name, made) in [("launches", Self.launchText()), ("rules", SGLangVersion.table + "\n")] {
      let found = try #require(page.section(name), "the page has no section '\(name)'")
      if GeneratedPage.isUpdating {
        page.replace(name, with: made)
      } else {
        #expect(found == made, "section '\(name)' is out of date: NIBBLE_UPDATE_DOCS=1 swift test")
      }
    }
    if GeneratedPage.isUpdating { try page.write() }
  }
}
