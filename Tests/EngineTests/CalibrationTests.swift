import Checkpoints
import Engine
import KVQuantization
import TestSupport
import Testing

@Suite struct CalibrationTests {
  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"])
  func rangesAreOrderedAndBecomeScales(model: String) throws {
    let drafts = model == "tiny-deepseek-v3" ? 1 : 0
    let runtime = try ModelRuntime(
      directory: Repository.model(model), threadCount: 1, speculation: drafts > 0 ? try Speculation() : nil)
    let layerCount = runtime.model.layerCount + drafts
    let calibration = try Calibration(runtime: runtime, tokens: (0..<90).map { Int32($0 * 37 % 4000) }, headroom: 1.5)
    #expect(calibration.tokenCount == 90)
    #expect(calibration.layers.count == layerCount)
    for layer in calibration.layers {
      for side in [layer.key, layer.value] {
        #expect(side.percentiles.half > 0)
        #expect(side.percentiles.half <= side.percentiles.p99 && side.percentiles.p99 <= side.percentiles.p999)
        #expect(side.percentiles.p999 <= side.amax)
        let calibrated = try #require(side.choices.last)
        #expect(calibrated.decodeScale == 1.5 * side.amax / 2688)
        // With the calibrated factor the largest block comes near the largest block scale, and a round trip has the error of the
        // format; without one, small ranges lose blocks.
        #expect(calibrated.subnormalScaleShare < 0.01)
        #expect(calibrated.relativeError < 0.12)
      }
    }

    // What is written is read back as the same factors.
    let written = try KVScaleSet(json: calibration.scales(source: "test").json, path: "test")
    #expect(written.convention == .amax && written.headroom == 1.5)
    let gate = KVScaleGate(
      key: .nvfp4, value: .nvfp4, isMLA: model.contains("deepseek"), layerCount: layerCount)
    let resolved = try gate.resolve(written)
    for (index, layer) in calibration.layers.enumerated() {
      #expect(abs(resolved.layers[index].key - 1.5 * layer.key.amax / 2688) <= 1e-6 * layer.key.amax)
      #expect(abs(resolved.layers[index].value - 1.5 * layer.value.amax / 2688) <= 1e-6 * layer.value.amax)
    }
  }

  @Test func refusesNoText() throws {
    let runtime = try ModelRuntime(directory: Repository.model("tiny-qwen3"), threadCount: 1)
    #expect(throws: EngineError.emptyPrompt) { try Calibration(runtime: runtime, tokens: []) }
  }

  /// The shipped models carry scales of every layer, those for multi-token prediction included, and automatic resolution finds them.
  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"])
  func shippedScales(model: String) throws {
    let checkpoint = try Checkpoint(directory: Repository.model(model))
    let found = try #require(try KVScaleSet.found(for: checkpoint))
    #expect(found.layers.count == checkpoint.configuration.layerCount + checkpoint.configuration.nextnLayerCount)
    #expect(found.source.hasSuffix("kv_scales.json"))
    #expect(found.headroom == Calibration.defaultHeadroom)
  }
}
