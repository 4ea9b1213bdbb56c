"""Results of one run on two images of a split, written by hand, with a word that is no word."""

import h5py
import numpy as np
from PIL import Image

from capscope.files import write_json, write_manifest

HOSTILE = "<script>alert(1)</script>"
WORDS = ["<pad>", "a", "cat", HOSTILE, "<unk>", "<start>", "<end>"]


def write_results(tmp_path):
    """Return the folders of the results and of the published values."""
    folder = tmp_path / "results" / "toy"
    data, run = folder / "data", folder / "runs" / "gridtd" / "xe" / "seed1"
    (data / "images").mkdir(parents=True)
    entries = []
    for image_id in (1, 2):
        Image.new("RGB", (32, 24), (200, 40 * image_id, 30)).save(data / f"images/{image_id}.png")
        sentence = {"raw": f"A cat & {HOSTILE}.", "tokens": ["a", "cat"], "sentid": image_id}
        entries.append(
            {
                "filepath": "images",
                "filename": f"{image_id}.png",
                "imgid": image_id,
                "split": "test",
                "sentids": [image_id],
                "sentences": [{**sentence, "imgid": image_id}],
            }
        )
    write_json(data / "dataset.json", {"dataset": "toy", "images": entries})
    write_manifest(data, "data", params={}, folders=["images"], skipped=3)
    run.mkdir(parents=True)
    info = {"system": "gridtd", "stage": "xe", "seed": 1, "vocabulary": {"words": WORDS}}
    write_json(run / "model.json", info)
    log = "epoch,step,split,metric,value\n1,2,train,loss,3.0\n1,2,val,cider,0.5\n"
    (run / "metrics.csv").write_text(log)
    (run / "history.csv").write_text("epoch,step,metric,value\n1,1,loss,4.0\n1,2,loss,2.0\n")
    write_manifest(run, "run", params={"x": 1})
    spoken = [
        {"image_id": k, "caption": f"a {HOSTILE}", "word_ids": [1, 3], "log_probs": [-0.1, -0.7, 0]}
        for k in (1, 2)
    ]
    write_json(run / "decoded" / "test.json", spoken)
    for explainer, control in (("lrp", False), ("attention", False), ("random_decoder", True)):
        _write_relevance(run / "relevance" / explainer / "test", explainer, control)
    explainers = {"lrp": "hash", "attention": "hash", "random_decoder": "hash"}
    write_json(run / "relevance" / "test.json", {"explainers": explainers, "left_out": {}})
    (run / "benchmarks").mkdir()
    lines = ["explainer,resolution,word_kind,split,measure,value,low,high,n"]
    for explainer, value in (("lrp", 0.9), ("attention", 0.7), ("random_decoder", 0.1)):
        for kind in ("noun", "colour", "relation"):
            for measure in ("hit", "mass", "choice"):
                for resolution in ("grid", "pixels"):
                    group = f"{explainer},{resolution},{kind},test,{measure}"
                    lines.append(f"{group},{value},{value - 0.05},{value + 0.05},40")
    (run / "benchmarks" / "ground_truth.csv").write_text("\n".join(lines) + "\n")
    _write_details(run / "benchmarks" / "details")
    (folder / "scores").mkdir()
    columns = (
        "dataset,system,stage,seed,split,metric,value,low,high,chance,count,direction,definition"
    )
    rows = [
        "toy,human,,,test,CIDEr,3.0,2.9,3.1,,2,higher,how alike",
        "toy,gridtd,xe,1,test,CIDEr,2.5,2.4,2.6,,2,higher,how alike",
        "toy,gridtd,xe,1,test,left_right_accuracy,0.8,0.7,0.9,0.5,2,higher,true claims",
        "toy,gridtd,xe,1,test,colour_accuracy,,,,,0,higher,right colours",
    ]
    (folder / "scores" / "captions.csv").write_text("\n".join([columns, *rows]) + "\n")
    per_image = "dataset,system,stage,seed,split,image_id,caption,CIDEr,CHAIR-i\n"
    per_image += "toy,gridtd,xe,1,test,1,a cat,2.0,0.0\ntoy,gridtd,xe,1,test,2,a cat,3.0,\n"
    (folder / "scores" / "per_image.csv").write_text(per_image)
    comparisons = [
        "dataset,split,metric,first,second,first_seeds,second_seeds,difference,low,high,"
        "p_bootstrap,t,p_t_test,images,direction",
        "toy,test,CIDEr,gridtd xe,aoa xe,2,1,0.5,0.25,0.75,0.002,3.1,0.004,2,higher",
        "toy,test,object_f1,gridtd xe,aoa xe,2,1,0.0,0.0,0.0,1.0,,,2,higher",
        "toy,test,BLEU-1,gridtd xe,aoa xe,2,1,0.5,0.25,0.75,0.002,3.1,0.004,2,higher",
    ]
    (folder / "scores" / "comparisons.csv").write_text("\n".join(comparisons) + "\n")
    seeds = "dataset,split,system,stage,metric,seeds,mean,sd,min,max,signature\n"
    seeds += "toy,test,gridtd,xe,CIDEr,2,2.5,0.125,2.4,2.6,\ntoy,test,aoa,xe,CIDEr,1,2,,2,2,\n"
    (folder / "scores" / "seeds.csv").write_text(seeds)
    published = tmp_path / "published"
    published.mkdir()
    (published / "paper.csv").write_text(
        "system,dataset,stage,metric,value,source\n"
        "gridtd,toy,xe,CIDEr,2.75,page 1\n"
        "gridtd,toy,scst,CIDEr,,nobody has it\n"
        "gridtd,other,xe,CIDEr,1.5,page 2\n"
    )
    return folder, published


def _write_relevance(folder, explainer, control):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with h5py.File(folder / "relevance.h5", "w") as file:
        file.attrs["grid"] = (2, 3)
        file["image_ids"] = np.array([1, 2])
        file["word_ids"] = np.array([[1, 3], [1, 3]])
        file["lengths"] = np.array([2, 2])
        file["grid"] = generator.normal(size=(2, 2, 6)).astype(np.float16)
        if explainer == "lrp":
            file["words"] = np.array([[[1, 0], [1, -2]]] * 2, np.float16)
            file["pixels"] = generator.normal(size=(2, 2, 8, 8)).astype(np.float16)
    title = {"lrp": "LRP", "attention": "attention"}.get(explainer, explainer)
    write_manifest(
        folder, "relevance", params={}, explainer=explainer, title=title, control=control
    )


def _write_details(folder):
    """Write what each image has, and that the second word of both captions is not in the image."""
    folder.mkdir()
    lines = ["explainer,resolution,word_kind,split,measure,image_id,part,whole"]
    for explainer, hits in (("lrp", (2, 2)), ("attention", (1, 2)), ("random_decoder", (0, 0))):
        for image_id, part in enumerate(hits, 1):
            lines.append(f"{explainer},pixels,noun,test,hit,{image_id},{part},2")
    (folder / "ground_truth.csv").write_text("\n".join(lines) + "\n")
    words = ["split,image_id,position,word,kind,verdict"]
    words += [f"test,1,1,{HOSTILE},noun,hallucinated", f"test,2,1,{HOSTILE},noun,right"]
    (folder / "words.csv").write_text("\n".join(words) + "\n")
